"""Keep by any score: a column of numbers that some feature measured."""

from __future__ import annotations

from typing import Literal, Self

import ibis.expr.types as ir
from pydantic import Field, model_validator

from filters._scores import above_maximum, below_minimum, outside_fraction
from filters.contract import PoolFilter


class Score(PoolFilter):
    """Keep samples whose `column` is at least `min`, or at most `max`, or among the best `keep_fraction`.

    `prefer` says which end of the scores is the best one for a fraction. A fraction keeps exactly
    round(fraction x samples), ties broken by uid. A sample without a score is dropped, and counts among them;
    with `missing: keep` it is kept, and does not count.
    """

    column: str = Field(min_length=1)
    min: float | None = None
    max: float | None = None
    keep_fraction: float | None = Field(None, gt=0, le=1)
    prefer: Literal["high", "low"] = "high"
    missing: Literal["drop", "keep"] = "drop"

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if sum(bound is not None for bound in (self.min, self.max, self.keep_fraction)) != 1:
            raise ValueError("give exactly one of min, max and keep_fraction")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def compares(self) -> bool:
        return self.keep_fraction is not None

    def drops(self, t: ir.Table) -> ir.Table:
        if self.missing == "keep":
            t = t.filter(t[self.column].notnull())
        if self.min is not None:
            return below_minimum(t, self.column, self.min)
        if self.max is not None:
            return above_maximum(t, self.column, self.max)
        assert self.keep_fraction is not None
        return outside_fraction(t, self.column, self.keep_fraction, self.prefer)
