"""Refuse captions that fit the image less than the sample's own one does."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.recaption.rowwise import RowCheck, share, spread


class Agreement(RowCheck):
    """Refuse a caption that scores lower than its original by more than `margin`, unless it has `min_score` or more.

    Scores are cosines of CLIP (Hessel et al., "CLIPScore", 2021), whose spread differs between models: see the
    histogram of `clip_score` in a report before trusting a bound. What has no score passes.
    """

    name: ClassVar = "agreement"
    margin: float = Field(0.05, ge=0, le=2)
    min_score: float | None = Field(None, ge=-1, le=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("score", "original_score")

    def reasons(self, captions: pa.Table) -> pa.Array:
        score, original = (captions[name].combine_chunks().cast(pa.float64()) for name in self.reads)
        lower = pc.less(score, pc.subtract(original, self.margin))
        if self.min_score is not None:
            lower = pc.and_(lower, pc.less(score, self.min_score))
        places = pc.indices_nonzero(lower.fill_null(False)).to_numpy()
        here, there = (share(values.take(pa.array(places)).to_numpy(), 3) for values in (score, original))
        line = pc.binary_join_element_wise("score ", here, " < the original's ", there, f" - {self.margin:g}", "")
        return spread(line, places, len(captions))
