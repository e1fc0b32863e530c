"""Prune crowded clusters: quotas add up, and the right end of a cluster goes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.optimize import minimize

from filters._quotas import balanced, by_density
from filters.diversity import Diversity
from tests.filters.conftest import Judge


def crowd(sizes: list[int], spread: list[float] | None = None, isolation: list[float] | None = None) -> list[dict]:
    """Clusters of some sizes, whose samples stand evenly up to `spread` from their centroid."""
    rows = []
    for cluster, size in enumerate(sizes):
        far = spread[cluster] if spread else 0.4
        rows += [
            {
                "cluster": cluster,
                "cluster_similarity": 1 - far * (n + 1) / size,
                "cluster_isolation": isolation[cluster] if isolation else 0.5,
            }
            for n in range(size)
        ]
    return rows


def test_the_excess_comes_from_the_largest_cluster(judge: Judge) -> None:
    rows = crowd([60, 10, 10])
    dropped = judge(Diversity(keep_fraction=0.5), rows)
    assert len(dropped) == 40
    assert {rows[int(uid[1:])]["cluster"] for uid in dropped} == {0}
    assert dropped["u000"] == ("cluster 0: 60 of 60 by distance, far first; 20 kept", None)


@pytest.mark.parametrize("mode", ["balanced", "density", "prototypicality"])
def test_far_and_near_keep_opposite_ends(judge: Judge, mode: str) -> None:
    rows = crowd([40])
    far, near = (set(judge(Diversity(keep_fraction=0.5, mode=mode, prefer=p), rows)) for p in ("far", "near"))  # type: ignore[arg-type]
    assert far == {f"u{n:03d}" for n in range(20)} and near == {f"u{n:03d}" for n in range(20, 40)}


def test_the_typical_go_first_whatever_their_cluster(judge: Judge) -> None:
    dropped = judge(Diversity(keep_fraction=0.5, mode="prototypicality"), crowd([10, 10], [0.1, 0.9]))
    assert set(dropped) == {f"u{n:03d}" for n in [*range(9), 10]}  # all but one of the tight cluster, and 0.09
    assert dropped["u000"] == ("distance 0.010 to the centroid: 20 of 20 by distance, far first; 10 kept", None)


def test_a_complex_cluster_keeps_more(judge: Judge) -> None:
    rows = crowd([40, 40], [0.1, 0.8], [0.5, 0.5])
    dropped = judge(Diversity(keep_fraction=0.5, mode="density"), rows)
    of = np.bincount([rows[int(uid[1:])]["cluster"] for uid in dropped])
    assert of.sum() == 40 and of[0] > of[1]


def test_a_sample_without_embedding_is_kept(judge: Judge) -> None:
    assert judge(Diversity(keep_fraction=0.5), [{"cluster": None}] * 4) == {}


def test_parameters_that_do_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="temperature belongs to `mode: density`"):
        Diversity(temperature=0.2)


def test_the_number_of_clusters_is_the_features() -> None:
    assert Diversity(clusters=7).sets == {"clusters": {"clusters": 7}} and Diversity().sets == {}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.floats(0.01, 1))
def test_balanced_quotas_add_up_and_are_fair(sizes: list[int], fraction: float) -> None:
    keep = round(sum(sizes) * fraction)
    quota = balanced(np.array(sizes), keep)
    assert quota.sum() == keep and (quota <= sizes).all()
    cut = quota[quota < sizes]
    assert len(cut) == 0 or quota.max() <= cut.min() + 1


@given(
    st.lists(st.tuples(st.integers(1, 60), st.floats(0, 1)), min_size=1, max_size=30),
    st.floats(0.01, 1), st.floats(0.02, 2), st.floats(0, 1),
)  # fmt: skip
def test_density_quotas_add_up_within_bounds(
    clusters: list[tuple[int, float]], fraction: float, heat: float, balance: float
) -> None:
    sizes, complexity = np.array([c[0] for c in clusters]), np.array([c[1] for c in clusters])
    keep = round(int(sizes.sum()) * fraction)
    quota = by_density(sizes, complexity, keep, heat, balance)
    assert quota.sum() == keep and (quota <= sizes).all() and (quota >= 0).all()


def test_density_quotas_solve_the_papers_quadratic_program() -> None:
    random = np.random.default_rng(0)
    sizes, complexity, keep = random.integers(5, 200, 12), random.random(12), 500
    wish = np.exp(complexity / 0.3) / np.exp(complexity / 0.3).sum() * keep
    least = np.minimum(sizes - 1, int(keep / 12 * 0.5))
    best = minimize(
        lambda x: ((x - wish) ** 2).sum(), wish, method="SLSQP", tol=1e-9,
        bounds=list(zip(least, sizes, strict=True)), constraints={"type": "eq", "fun": lambda x: x.sum() - keep},
    )  # fmt: skip
    assert np.abs(by_density(sizes, complexity, keep, 0.3, 0.5) - best.x).max() <= 1
