"""Keep the pairs whose image and caption agree most."""

from __future__ import annotations

from typing import Self

import ibis
import ibis.expr.types as ir
from pydantic import Field, model_validator

from filters.contract import PoolFilter, number, text


class ClipScore(PoolFilter):
    """Keep samples with `clip_score` of at least `min`, or the top `keep_fraction` of those that reach it.

    A fraction keeps exactly round(fraction x samples), ties broken by uid (DataComp's CLIP filter, Gadre et
    al. 2023). A sample without a score is dropped, and counts among the samples.
    """

    min: float | None = Field(None, ge=-1, le=1)
    keep_fraction: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.min is None) == (self.keep_fraction is None):
            raise ValueError("give either min or keep_fraction, not both and not neither")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return ("clip_score",)

    def drops(self, t: ir.Table) -> ir.Table:
        score = t.clip_score
        if self.min is not None:
            below = t.filter(score.isnull() | (score < self.min))
            bound = f" < {self.min:.3f}"
            return _verdicts(below, text("clip_score ") + number(below.clip_score) + bound)
        ranked = t.mutate(
            place=ibis.row_number().over(order_by=[score.isnull(), score.desc(), t.uid, t.row]),
            samples=t.count().over(ibis.window()),
        )
        ranked = ranked.mutate(kept=(ranked.samples * self.keep_fraction).round().cast("int64"))
        ranked = ranked.mutate(
            bound=ranked.clip_score.max(where=ranked.place >= ranked.kept - 1).over(ibis.window()),
        )
        below = ranked.filter((ranked.place >= ranked.kept) | ranked.clip_score.isnull())
        said = text("clip_score ") + number(below.clip_score) + " < " + number(below.bound)
        return _verdicts(below, said + f", not in the top {self.keep_fraction:g}")


def _verdicts(below: ir.Table, reason: ir.StringValue) -> ir.Table:
    return below.select("row", reason=reason.fill_null("no clip_score"), duplicate_of=ibis.null("string"))
