"""Clusters: the same on any number of threads, over any cut into shards, and with saved centroids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.artifacts import artifact_digest, read_artifact
from curate.cli import run
from curate.errors import WorkError
from curate.features.clusters import Clusters, isolation
from curate.features.contract import Known
from curate.kmeans import fit_kmeans
from filters._vectors import nearest
from tests.conftest import pair, write_pool


def bundles(count: int, directions: int, size: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around some directions, and whose each is."""
    random = np.random.default_rng(seed)
    whose = np.arange(count) % directions
    vectors = np.linalg.qr(random.normal(size=(size, size)))[0][:directions][whose]
    vectors = (vectors + random.normal(0, noise, (count, size))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), whose


def table(vectors: np.ndarray, missing: tuple[int, ...] = ()) -> pa.Table:
    rows = [None if n in missing else v for n, v in enumerate(vectors.astype(np.float16).tolist())]
    column = pa.array(
        [None if r is None else np.array(r, np.float16) for r in rows], pa.list_(pa.float16(), vectors.shape[1])
    )
    return pa.table({"uid": [f"u{n}" for n in range(len(vectors))], "clip_image": column})


def test_bundles_are_found() -> None:
    vectors, whose = bundles(600, 6, 32, 0.05)
    _, cluster = nearest(vectors, fit_kmeans(vectors, 12, seed=0))
    assert all(len(set(whose[cluster == c])) == 1 for c in set(cluster))


def test_threads_change_nothing() -> None:
    import faiss

    vectors, _ = bundles(5003, 40, 48, 0.15)
    before, found = faiss.omp_get_max_threads(), []
    try:
        for threads in (1, 2, 5):
            faiss.omp_set_num_threads(threads)
            centroids = fit_kmeans(vectors, 70, seed=3, rounds=6)
            found.append((centroids.tobytes(), nearest(vectors, centroids)[0].tobytes()))
    finally:
        faiss.omp_set_num_threads(before)
    assert len(set(found)) == 1


def test_no_cluster_is_empty_even_with_many_equal_vectors() -> None:
    vectors = np.repeat(bundles(4, 4, 8, 0)[0], 50, axis=0)
    centroids = fit_kmeans(vectors, 10, seed=0)
    assert centroids.shape == (10, 8) and np.isfinite(centroids).all()


def test_rows_are_judged_alone() -> None:
    vectors, _ = bundles(300, 5, 16, 0.1)
    rows, feature = table(vectors, missing=(7, 299)), Clusters()
    artifact = feature.fit_with(rows, Known(300, {}))
    assert artifact["centroids"].shape == (17, 16)
    whole = feature.apply(artifact, rows)
    parts = [feature.apply(artifact, rows.slice(start, 41)) for start in range(0, 300, 41)]
    for name in feature.columns():
        assert whole[name].to_pylist() == [v for part in parts for v in part[name].to_pylist()]
        assert [n for n, v in enumerate(whole[name].to_pylist()) if v is None] == [7, 299]
    shuffled = np.random.default_rng(0).permutation(300)
    assert feature.apply(artifact, rows.take(pa.array(shuffled)))["cluster"].equals(
        whole["cluster"].take(pa.array(shuffled))
    )


def test_a_pool_without_embeddings_has_no_clusters() -> None:
    rows, feature = table(np.zeros((3, 4)), missing=(0, 1, 2)), Clusters()
    artifact = feature.fit_with(rows, Known(3, {}))
    assert feature.apply(artifact, rows)["cluster"].to_pylist() == [None] * 3


def test_centroids_of_another_model_are_refused() -> None:
    feature = Clusters()
    artifact = feature.fit_with(table(np.eye(4)), Known(4, {}))
    with pytest.raises(WorkError, match="centroids of 4 numbers and clip_image of 8"):
        feature.apply(artifact, table(np.eye(8)))


def test_isolation_is_the_mean_distance_to_the_nearest_centroids() -> None:
    centroids = bundles(50, 8, 16, 0.3)[0]
    cosines = np.sort(centroids @ centroids.T, axis=1)[:, ::-1]
    assert isolation(centroids) == pytest.approx((1 - cosines[:, 1:21]).mean(axis=1), abs=1e-4)
    assert isolation(centroids[:1]).tolist() == [0]


def test_the_command_measures_clusters_and_a_recipe_uses_them(tmp_path: Path, tiny_clip: Path) -> None:
    pool = write_pool(tmp_path / "pool", [pair(n) for n in range(30)])
    model = f"features.clip.model={tiny_clip}"
    assert run(["measure", str(pool), "--features", "clusters", "--set", model]) == 0
    (saved,) = (pool / "_features" / "_artifacts").glob("clusters-*.npz")
    with np.load(saved, allow_pickle=False) as arrays:
        assert arrays["centroids"].shape == (5, 16)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("filters: [semantic_duplicates: {epsilon: 0.0001}, diversity: {keep_fraction: 0.5}]")
    assert run(["filter", str(pool), str(tmp_path / "out"), "-r", str(recipe), "--set", model]) == 0
    assert list((pool / "_features" / "_artifacts").glob("clusters-*.npz")) == [saved]
    other = write_pool(tmp_path / "other", [pair(n) for n in range(40, 50)])
    command = ["measure", str(other), "--features", "clusters", "--set", model]
    assert run([*command, "--set", f"features.clusters.artifact={saved}"]) == 0
    (again,) = (other / "_features" / "_artifacts").glob("clusters-*.npz")
    assert artifact_digest(read_artifact(str(again), "")) == artifact_digest(read_artifact(str(saved), ""))
