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
        if self.min_score is not None:
            low, said = _lower(score, pa.scalar(self.min_score))
            line = pc.binary_join_element_wise("score ", said, f" < {self.min_score:g}", "")
            found = spread(line, low, len(captions))
        if self.margin is not None:
            low, said = _lower(score, pc.subtract(original, self.margin))
            own = share(original.take(pa.array(low)).to_numpy(), 3)
            line = pc.binary_join_element_wise(
                "score ", said, " < ", own, f" of the original, less {self.margin:g}", ""
            )
            found = pc.coalesce(found, spread(line, low, len(captions)))
        return found


def _lower(score: pa.Array, bound: pa.Array | pa.Scalar) -> tuple[np.ndarray, pa.Array]:
    """Where a score is lower than its bound, and those scores as texts."""
    places = pc.indices_nonzero(pc.less(score, bound).fill_null(False)).to_numpy()
    return places, share(score.take(pa.array(places)).to_numpy(), 3)
