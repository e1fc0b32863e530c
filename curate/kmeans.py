"""Spherical k-means: the same vectors in the same order give the same centroids, with any number of threads."""

from __future__ import annotations

import numpy as np

from filters._vectors import nearest

ROUNDS = 20


def fit_kmeans(vectors: np.ndarray, clusters: int, seed: int, rounds: int = ROUNDS) -> np.ndarray:
    """Centroids of unit length, float32 (clusters, d), of unit vectors, float32 (n, d), with n >= clusters > 0.

    Lloyd's rounds with FAISS's exact search: on GPUs all of it is FAISS's own k-means; on a CPU the search runs in
    blocks on all cores and the means are summed in one order, because FAISS's sums depend on the number of threads.
    """
    import faiss

    size = vectors.shape[1]
    if faiss.get_num_gpus():
        kmeans = faiss.Kmeans(
            size, clusters, niter=rounds, seed=seed, spherical=True, gpu=True,
            min_points_per_centroid=1, max_points_per_centroid=len(vectors),
        )  # fmt: skip
        kmeans.train(vectors)
        return np.asarray(kmeans.centroids, np.float32)
    first = np.random.default_rng(seed).choice(len(vectors), clusters, replace=False)
    centroids = vectors[np.sort(first)]
    for _ in range(rounds):
        _, cluster = nearest(vectors, centroids)
        moved = _means(vectors, cluster, clusters)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def _means(vectors: np.ndarray, cluster: np.ndarray, clusters: int) -> np.ndarray:
    """The direction of each cluster's mean; one without vectors takes half of the largest one's, as FAISS does."""
    from scipy.sparse import csr_matrix

    members = csr_matrix(
        (np.ones(len(cluster), np.float32), (cluster, np.arange(len(cluster)))), (clusters, len(cluster))
    )
    means = np.asarray(members @ vectors, np.float32)
    sizes = np.bincount(cluster, minlength=clusters)
    for empty in np.flatnonzero(sizes == 0):
        largest = int(sizes.argmax())
        tilt = np.where(np.arange(vectors.shape[1]) % 2 == 0, 1 + 1 / 1024, 1 - 1 / 1024).astype(np.float32)
        means[empty], means[largest] = means[largest] * tilt, means[largest] / tilt
        sizes[empty], sizes[largest] = sizes[largest] // 2, sizes[largest] - sizes[largest] // 2
    length = np.linalg.norm(means, axis=1, keepdims=True)
    return means / np.where(length > 0, length, 1)
