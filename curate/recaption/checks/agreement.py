"""Refuse captions that fit the image less than the sample's own one does."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.recaption.rowwise import RowCheck, share, spread


class Agreement(RowCheck):
    """Refuse a caption that scores below `min_score`, or below its original's score by more than `margin`.

    Scores are cosines of CLIP (Hessel et al., "CLIPScore", 2021), whose spread differs between models: see the
    histogram of `clip_score` in a report before setting a bound. Null is no bound. What has no score passes.
    """

    name: ClassVar = "agreement"
    margin: float | None = Field(0.05, ge=0, le=2)
    min_score: float | None = Field(None, ge=-1, le=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("score", "original_score")

    def reasons(self, captions: pa.Table) -> pa.Array:
        score, original = (captions[name].combine_chunks().cast(pa.float64()) for name in self.reads)
        found = pa.nulls(len(captions), pa.string())
        for bound, of_it in ((self.min_score, ""), (self.margin, " of the original, less")):
            if bound is None:
                continue
            least = pc.subtract(original, bound) if of_it else pa.array(np.full(len(captions), bound))
            places = pc.indices_nonzero(pc.less(score, least).fill_null(False)).to_numpy()
            here, there = (share(values.take(pa.array(places)).to_numpy(), 3) for values in (score, original))
            end = pc.binary_join_element_wise(there, f"{of_it} {bound:g}", "") if of_it else f"{bound:g}"
            found = pc.coalesce(
                found, spread(pc.binary_join_element_wise("score ", here, " < ", end, ""), places, len(captions))
            )
        return found
