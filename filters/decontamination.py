"""Drop images of evaluation sets, so that a model is not tested on what it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import ibis
import ibis.expr.types as ir
from pydantic import Field, model_validator

from filters.contract import Columns, Paths, RowFilter, number, text


class Decontamination(RowFilter):
    """Drop a sample whose image is one of the evaluation sets' `against`, or nearly so: by a perceptual hash within
    `max_distance` bits, or, if `min_cosine` is given, by an embedding with at least that cosine.

    An evaluation set is a folder or URL of shards (its images are measured like the pool's, captions are not needed),
    a `.parquet` with a `phash` or embedding column, or a `.npy` of embeddings. The reason names the evaluation image.
    A sample that could not be compared is kept.
    """

    against: Paths = Field(min_length=1)
    max_distance: int | None = Field(8, ge=0, le=15)
    min_cosine: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _some_distance(self) -> Self:
        if self.max_distance is None and self.min_cosine is None:
            raise ValueError("give max_distance, min_cosine or both")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        hashes = ("evaluation_bits", "evaluation_match") if self.max_distance is not None else ()
        return (*hashes, *(("evaluation_cosine", "evaluation_match_embedding") if self.min_cosine is not None else ()))

    @property
    def sets(self) -> Mapping[str, Mapping[str, Any]]:
        kinds = {"phash": self.max_distance, "embedding": self.min_cosine}
        by = [kind for kind, bound in kinds.items() if bound is not None]
        return {"evaluation": {"against": self.against, "by": by}}

    def keep(self, t: Columns) -> ir.BooleanValue:
        keep = ibis.literal(True)
        if self.max_distance is not None:
            keep = keep & ~_hit(t.evaluation_bits <= self.max_distance)
        if self.min_cosine is not None:
            keep = keep & ~_hit(t.evaluation_cosine >= self.min_cosine)
        return keep

    def reason(self, t: Columns) -> ir.StringValue:
        said = ibis.null("string")
        if self.min_cosine is not None:
            near = text("cosine ") + number(t.evaluation_cosine) + " to " + _name(t.evaluation_match_embedding)
            said = near + f", >= {self.min_cosine:.3f}"
        if self.max_distance is not None:
            bits = text("phash ") + t.evaluation_bits.cast("string") + " bits from " + _name(t.evaluation_match)
            said = ibis.ifelse(_hit(t.evaluation_bits <= self.max_distance), bits + f", <= {self.max_distance}", said)
        return said


def _hit(near: ir.BooleanValue) -> ir.BooleanValue:
    """Whether it is near; what could not be compared is not."""
    return near.fill_null(False)


def _name(item: ir.StringValue) -> ir.StringValue:
    """An evaluation image's name, the end of it if it is long."""
    return ibis.ifelse(item.length() > 100, text("...") + item.right(97), item)
