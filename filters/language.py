"""Keep captions in the languages asked for."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from pydantic import Field

from filters.contract import Columns, RowFilter, number, text


class Language(RowFilter):
    """Keep captions that fastText puts in one of `keep` (ISO 639 codes) with at least `min_probability`."""

    keep_languages: tuple[str, ...] = Field(("en",), min_length=1, alias="keep")
    min_probability: float = Field(0.5, ge=0, le=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("language", "language_probability")

    def keep(self, t: Columns) -> ir.BooleanValue:
        return t.language.isin(self.keep_languages) & (t.language_probability >= self.min_probability)

    def reason(self, t: Columns) -> ir.StringValue:
        found = t.language + " with probability " + number(t.language_probability, 2)
        wanted = ", ".join(self.keep_languages)
        return ibis.cases(
            (t.language.isnull(), text("no language can be told")),
            (
                t.language.isin(self.keep_languages),
                text("language ") + found + f" < {self.min_probability:g}",
            ),
            else_=text("language ") + found + f", not {wanted}",
        )
