"""Keep the pairs whose image and caption agree most."""

from __future__ import annotations

from typing import Literal, Self

import ibis.expr.types as ir
from pydantic import Field, model_validator

from filters._scores import below_minimum, below_rank, outside_fraction
from filters.contract import PoolFilter


class ClipScore(PoolFilter):
    """Keep samples with `clip_score` of at least `min`, or the top `keep_fraction` of those that reach it.

    A fraction keeps exactly round(fraction x samples), ties broken by uid. With `ties: keep` it keeps every
    score that reaches the one at place floor(fraction x samples) from 0, as the scripts of DataComp do (Gadre
    et al. 2023). A sample without a score is dropped, and counts among the samples.
    """

    min: float | None = Field(None, ge=-1, le=1)
    keep_fraction: float | None = Field(None, gt=0, le=1)
    ties: Literal["cut", "keep"] = "cut"

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.min is None) == (self.keep_fraction is None):
            raise ValueError("give either min or keep_fraction, not both and not neither")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return ("clip_score",)

    @property
    def compares(self) -> bool:
        return self.keep_fraction is not None

    def drops(self, t: ir.Table) -> ir.Table:
        if self.min is not None:
            return below_minimum(t, "clip_score", self.min)
        assert self.keep_fraction is not None
        if self.ties == "keep":
            return below_rank(t, "clip_score", self.keep_fraction)
        return outside_fraction(t, "clip_score", self.keep_fraction)
