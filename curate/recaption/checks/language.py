"""Refuse captions in another language than those asked for."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.recaption.rowwise import RowCheck, share, spread

LETTERS = 15
"""Characters a word: with more, the words are not between spaces."""


class Language(RowCheck):
    """Refuse what fastText puts, with at least `min_probability`, in a language that is not one of `keep`.

    In doubt a caption passes: of a few words even a good guesser is often unsure, and captions of less than
    `min_words` words are not judged, but for those in a script without spaces.
    """

    name: ClassVar = "language"
    keep: tuple[str, ...] = Field(("en",), min_length=1)
    min_probability: float = Field(0.5, ge=0, le=1)
    min_words: int = Field(4, ge=0)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("language", "language_probability", "caption_words", "caption_length")

    def reasons(self, captions: pa.Table) -> pa.Array:
        other = pc.invert(pc.is_in(captions["language"], value_set=pa.array(self.keep)))
        sure = pc.greater_equal(captions["language_probability"], pa.scalar(self.min_probability, pa.float32()))
        words = captions["caption_words"]
        crowded = pc.greater(captions["caption_length"], pc.multiply(words, LETTERS))
        enough = pc.or_(pc.greater_equal(words, self.min_words), crowded)
        found = pc.and_(pc.and_(other, sure), enough).combine_chunks().fill_null(False)
        places = pc.indices_nonzero(found).to_numpy()
        guess = captions.take(pa.array(places))
        said = share(guess["language_probability"].to_numpy())
        kept = ", ".join(self.keep)
        line = pc.binary_join_element_wise(
            "language ", guess["language"].combine_chunks(), " with probability ", said, f", not {kept}", ""
        )
        return spread(line, places, len(captions))
