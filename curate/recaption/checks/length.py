"""Refuse captions that are too short or too long."""

from __future__ import annotations

from typing import ClassVar, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from curate.recaption.rowwise import RowCheck, first_reason


class Length(RowCheck):
    """Bounds on words, between white space, and on characters; both ends may stay.

    Languages without spaces want `min_words: 1`. The defaults let alt texts and paragraphs of a model pass, and
    stop what says nothing and what never ended.
    """

    name: ClassVar = "length"
    min_words: int = Field(2, ge=0)
    max_words: int | None = Field(400, ge=1)
    min_length: int = Field(5, ge=0)
    max_length: int | None = Field(3000, ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for low, high in (("min_words", "max_words"), ("min_length", "max_length")):
            most = getattr(self, high)
            if most is not None and most < getattr(self, low):
                raise ValueError(f"{high}: {most} is less than {low}, {getattr(self, low)}")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return ("caption_words", "caption_length")

    def reasons(self, captions: pa.Table) -> pa.Array:
        cases = []
        for column, unit, least, most in (
            ("caption_words", "words", self.min_words, self.max_words),
            ("caption_length", "characters", self.min_length, self.max_length),
        ):
            values = captions[column].combine_chunks()
            said = pc.binary_join_element_wise(values.cast(pa.string()), f"{unit} ", " ")
            cases.append((pc.less(values, least), pc.binary_join_element_wise(said, f"< {least}", "")))
            if most is not None:
                cases.append((pc.greater(values, most), pc.binary_join_element_wise(said, f"> {most}", "")))
        return first_reason(len(captions), cases)
