"""Clusters of images that look or mean alike: spherical k-means of their embeddings."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.errors import WorkError
from curate.features.contract import GlobalFeature, Known
from curate.kmeans import ROUNDS, fit_kmeans
from filters._vectors import nearest, unit

NEIGHBOURS = 20


class Clusters(GlobalFeature):
    """`cluster`, from 0; `cluster_similarity`, the cosine to its own centroid; and `cluster_isolation`, the mean cosine
    distance of that centroid to its 20 nearest ones (d_inter of Abbas et al. 2024), alike for a whole cluster.

    k-means is fitted on `sample` rows in at most so many `rounds`; `clusters` defaults to the square root of the
    pool's samples. A sample without an embedding has no cluster. `artifact` uses centroids fitted before, so that
    clusters keep their meaning from one pool to the next. `column` is the embedding.
    """

    name: ClassVar = "clusters"
    version: ClassVar = 1
    gpu: ClassVar = True
    clusters: int | None = Field(None, ge=1)
    seed: int = 0
    sample: int = Field(262_144, ge=1)
    rounds: int = Field(ROUNDS, ge=1)
    column: str = "clip_image"
    artifact: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def sample_rows(self) -> int:
        return self.sample

    def arrow_schema(self) -> pa.Schema:
        return pa.schema(
            {"cluster": pa.int32(), "cluster_similarity": pa.float32(), "cluster_isolation": pa.float32()},
        )

    def fit_with(self, rows: pa.Table, known: Known) -> dict[str, np.ndarray]:
        vectors = unit(pc.drop_null(rows[self.column]))
        if len(vectors) == 0:
            return {"centroids": np.zeros((0, 0), np.float32), "isolation": np.zeros(0, np.float32)}
        clusters = min(self.clusters or max(1, round(known.samples**0.5)), len(vectors))
        centroids = fit_kmeans(vectors, clusters, self.seed, self.rounds)
        return {"centroids": centroids, "isolation": isolation(centroids)}

    def apply(self, artifact: dict[str, np.ndarray], rows: pa.Table) -> dict[str, pa.Array]:
        real = rows[self.column].is_valid().to_numpy()
        cluster, similarity = np.zeros(len(rows), np.int32), np.zeros(len(rows), np.float32)
        centroids = artifact["centroids"]
        if real.any():
            vectors = unit(pc.drop_null(rows[self.column]))
            if centroids.shape[1] != vectors.shape[1]:
                raise WorkError(
                    f"features.clusters: centroids of {centroids.shape[1]} numbers and {self.column} of "
                    f"{vectors.shape[1]}; the artifact is another model's"
                )
            product, found = nearest(vectors, centroids)
            cluster[real], similarity[real] = found, product.clip(-1, 1).round(5)
        alone = artifact["isolation"][cluster] if len(centroids) else similarity
        return {
            "cluster": pa.array(cluster, pa.int32(), mask=~real),
            "cluster_similarity": pa.array(similarity, pa.float32(), mask=~real),
            "cluster_isolation": pa.array(alone, pa.float32(), mask=~real),
        }


def isolation(centroids: np.ndarray) -> np.ndarray:
    """The mean cosine distance of each centroid, float32 (k, d), to its 20 nearest others (k,); 0 for a single one."""
    import faiss

    count = min(NEIGHBOURS, len(centroids) - 1)
    if count == 0:
        return np.zeros(len(centroids), np.float32)
    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    product, _ = index.search(centroids, count + 1)
    return (1 - product[:, 1:]).mean(axis=1).round(5).astype(np.float32)
