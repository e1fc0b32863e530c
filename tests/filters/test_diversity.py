from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from filters.diversity import Diversity, quotas
from tests.filters.conftest import Judge


def crowd(sizes: list[int], seed: int = 0) -> list[dict]:
    """Unit vectors around as many directions as there are sizes."""
    random = np.random.default_rng(seed)
    rows = []
    for axis, size in enumerate(sizes):
        vectors = np.eye(8)[axis] + random.normal(0, 0.05, (size, 8))
        rows += [{"clip_image": (v / np.linalg.norm(v)).tolist(), "group": axis} for v in vectors]
    return rows


def test_the_excess_comes_from_the_largest_cluster(judge: Judge) -> None:
    rows = crowd([60, 10, 10])
    dropped = judge(Diversity(keep_fraction=0.5, clusters=3), rows)
    assert len(dropped) == 40
    assert {rows[int(uid[1:])]["group"] for uid in dropped} == {0}
    assert all("of 60 by distance, far first; 20 kept" in reason for reason, _ in dropped.values())


def test_far_and_near_keep_opposite_ends(judge: Judge) -> None:
    rows = crowd([40])
    far, near = (set(judge(Diversity(keep_fraction=0.5, clusters=1, prefer=p), rows)) for p in ("far", "near"))
    assert far.isdisjoint(near) and len(far | near) == 40


def test_a_sample_without_embedding_is_kept(judge: Judge) -> None:
    assert judge(Diversity(keep_fraction=0.5), [{"clip_image": None}] * 4) == {}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.floats(0.01, 1))
def test_quotas_add_up_and_are_fair(sizes: list[int], fraction: float) -> None:
    keep = round(sum(sizes) * fraction)
    quota = quotas(np.array(sizes), keep)
    assert quota.sum() == keep and (quota <= sizes).all()
    cut = quota[quota < sizes]
    assert len(cut) == 0 or quota.max() <= cut.min() + 1
