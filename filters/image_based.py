"""Keep images that resemble a target set's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ibis.expr.types as ir
from pydantic import Field

from filters.contract import Columns, Paths, RowFilter, text


class ImageBased(RowFilter):
    """Keep a sample whose image's cluster is the nearest one of at least one image of the `target` sets (DataComp's
    image-based filter, Gadre et al. 2023, arXiv:2304.14108, whose target is ImageNet's training images).

    A target set is a folder or URL of shards, a `.parquet` with the embedding's column, or a `.npy` of embeddings.
    """

    target: Paths = Field(min_length=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("cluster", "in_target_cluster")

    @property
    def sets(self) -> Mapping[str, Mapping[str, Any]]:
        return {"target_clusters": {"target": self.target}}

    def keep(self, t: Columns) -> ir.BooleanValue:
        return t.in_target_cluster

    def reason(self, t: Columns) -> ir.StringValue:
        return text("cluster ") + t.cluster.cast("string") + " is the nearest of no target image"
