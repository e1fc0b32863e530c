"""Drop captions that are too short, too long, or hardly text."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from pydantic import Field

from filters.contract import Columns, RowFilter, number, text


class CaptionRules(RowFilter):
    """Keep captions within bounds on words, characters and the share of letters among visible characters.

    The defaults ask for what DataComp's basic filter does: more than two words and more than five characters.
    """

    min_words: int = Field(3, ge=0)
    max_words: int | None = Field(None, ge=1)
    min_length: int = Field(6, ge=0)
    max_length: int | None = Field(1000, ge=1)
    min_alpha: float = Field(0.5, ge=0, le=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("caption_words", "caption_length", "caption_alpha")

    def keep(self, t: Columns) -> ir.BooleanValue:
        keep = (t.caption_words >= self.min_words) & (t.caption_length >= self.min_length)
        if self.max_words is not None:
            keep &= t.caption_words <= self.max_words
        if self.max_length is not None:
            keep &= t.caption_length <= self.max_length
        return keep & (t.caption_alpha >= self.min_alpha)

    def reason(self, t: Columns) -> ir.StringValue:
        words = t.caption_words.cast("string") + ibis.ifelse(t.caption_words == 1, " word", " words")
        length = t.caption_length.cast("string") + ibis.ifelse(t.caption_length == 1, " character", " characters")
        cases = [
            (t.caption_words < self.min_words, words + f" < {self.min_words}"),
            (t.caption_length < self.min_length, length + f" < {self.min_length}"),
        ]
        if self.max_words is not None:
            cases.append((t.caption_words > self.max_words, words + f" > {self.max_words}"))
        if self.max_length is not None:
            cases.append((t.caption_length > self.max_length, length + f" > {self.max_length}"))
        letters = text("share of letters ") + number(t.caption_alpha, 2) + f" < {self.min_alpha:g}"
        return ibis.cases(*cases, else_=letters)
