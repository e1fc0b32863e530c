"""Whether an image lies in a cluster that images of a target set lie in."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.errors import RequestError
from curate.features.contract import GlobalFeature, Known
from curate.features.normsim import target_vectors
from filters._vectors import nearest
from filters.contract import Paths


class TargetClusters(GlobalFeature):
    """`in_target_cluster`: whether at least one image of the `target` sets has the sample's cluster as its nearest
    (image-based filtering, Gadre et al. 2023, arXiv:2304.14108). Clusters are those of the `clusters` feature.
    """

    name: ClassVar = "target_clusters"
    version: ClassVar = 1
    target: Paths = Field([])
    column: str = "clip_image"

    @property
    def reads(self) -> tuple[str, ...]:
        return ("cluster",)

    @property
    def compares(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.target)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"in_target_cluster": pa.bool_()})

    def fit_with(self, rows: pa.Table, known: Known) -> dict[str, np.ndarray]:
        vectors = target_vectors(known, self.column, "features.target_clusters.target")
        centroids = known.artifacts["clusters"]["centroids"]
        if len(centroids) == 0:
            return {"clusters": np.zeros(0, np.int32)}
        if centroids.shape[1] != vectors.shape[1]:
            raise RequestError(
                f"features.target_clusters.target: embeddings of {vectors.shape[1]} numbers, and the clusters have "
                f"{centroids.shape[1]}; use the same model for both"
            )
        return {"clusters": np.unique(nearest(vectors, centroids)[1]).astype(np.int32)}

    def apply(self, artifact: dict[str, np.ndarray], rows: pa.Table) -> dict[str, pa.Array]:
        found = pc.is_in(rows["cluster"], value_set=pa.array(artifact["clusters"], pa.int32()))
        return {"in_target_cluster": pc.if_else(rows["cluster"].is_valid(), found, pa.scalar(None, pa.bool_()))}
