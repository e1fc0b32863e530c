"""Prune where images crowd: fewer from large clusters, so that rare content keeps its place."""

from __future__ import annotations

from typing import Literal

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from filters._groups import places
from filters.contract import VERDICTS, PoolFilter

SAMPLES_PER_CLUSTER = 256  # what k-means is fitted on; more moves the centroids little


class Diversity(PoolFilter):
    """Keep `keep_fraction` of the samples, taking the excess from the largest k-means clusters of `clip_image`.

    One cap holds for all clusters, chosen so that the kept samples add up; within a cluster those `prefer`red
    stay: `far` from the centroid (hard and rare, as Sorscher et al. 2022 advise for large pools) or `near`
    it (typical). `clusters` defaults to the square root of the number of samples. The same samples give the
    same clusters under any order; a sample without an embedding is kept.
    """

    keep_fraction: float = Field(0.8, gt=0, le=1)
    clusters: int | None = Field(None, ge=1)
    prefer: Literal["far", "near"] = "far"
    seed: int = 0

    @property
    def reads(self) -> tuple[str, ...]:
        return ("clip_image",)

    def drops(self, t: ir.Table) -> pa.Table:
        rows = t.filter(t.clip_image.notnull()).to_pyarrow()
        rows = rows.take(pc.sort_indices(rows, sort_keys=[("uid", "ascending"), ("row", "ascending")]))
        count = len(rows)
        if count == 0:
            return VERDICTS.empty_table()
        vectors = _matrix(rows["clip_image"])
        cluster, distance = cluster_vectors(vectors, self.clusters or max(1, round(count**0.5)), self.seed)
        # Rounded, so that the last bit of a sum decides nothing.
        distance = distance.round(4) * (-1 if self.prefer == "far" else 1)
        order = np.lexsort((np.arange(count), distance, cluster))
        size = np.bincount(cluster)
        place = places(cluster, order)
        quota = quotas(size, round(count * self.keep_fraction))
        dropped = np.flatnonzero(place >= quota[cluster])
        said = [pa.array(v[dropped]).cast(pa.string()) for v in (cluster, place + 1, size[cluster], quota[cluster])]
        reason = pc.binary_join_element_wise(
            "cluster ", said[0], ": ", said[1], " of ", said[2], f" by distance, {self.prefer} first; ",
            said[3], " kept", "",
        )  # fmt: skip
        no_survivor = pa.nulls(len(dropped), pa.string())
        return pa.table([rows["row"].take(dropped), reason, no_survivor], schema=VERDICTS)


def cluster_vectors(vectors: np.ndarray, clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Spherical k-means of unit vectors, float32 (n, d), fitted on an even sample of them.

    Returns each vector's cluster (n,) and its cosine distance to that centroid (n,), 0 to 2.
    """
    import faiss

    clusters = min(clusters, len(vectors))
    step = max(1, len(vectors) // (clusters * SAMPLES_PER_CLUSTER))
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # sums in one order: the same centroids on any machine size
    try:
        kmeans = faiss.Kmeans(
            vectors.shape[1], clusters, niter=20, seed=seed, spherical=True, min_points_per_centroid=1,
            max_points_per_centroid=2 * SAMPLES_PER_CLUSTER,
        )  # fmt: skip
        kmeans.train(vectors[::step])
        similarity, cluster = kmeans.index.search(vectors, 1)
    finally:
        faiss.omp_set_num_threads(threads)
    return cluster[:, 0], 1 - similarity[:, 0]


def quotas(sizes: np.ndarray, keep: int) -> np.ndarray:
    """How many to keep of each cluster: all of the small ones, and of the large ones as evenly as goes.

    >>> quotas(np.array([10, 2, 5]), 10).tolist()
    [4, 2, 4]
    """
    ascending = np.sort(sizes)
    cap = np.searchsorted(_kept_at(ascending, np.arange(ascending[-1] + 1)), keep, "right") - 1
    quota = np.minimum(sizes, cap)
    short = keep - int(quota.sum())
    more = np.flatnonzero(sizes > cap)[:short]
    quota[more] += 1
    return quota


def _kept_at(ascending: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """Samples kept under each cap: cluster sizes sorted (k,), caps (c,) to counts (c,)."""
    below = np.searchsorted(ascending, caps, "right")
    sums = np.concatenate([[0], np.cumsum(ascending)])
    return sums[below] + caps * (len(ascending) - below)


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of equally long lists as float32 (n, d)."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat.reshape(len(column), -1), np.float32)
