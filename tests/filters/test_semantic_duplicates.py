"""Semantic duplicates: each rule against the plainest code that says the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import semantic_duplicates
from filters.semantic_duplicates import SemanticDuplicates, decide
from tests.filters.conftest import Judge


def at(*degrees: float, cluster: int = 0) -> list[dict]:
    """Vectors in a plane; the centroid lies at 0 degrees."""
    angles = np.radians(degrees)
    return [
        {
            "clip_image": [np.cos(a), np.sin(a)],
            "cluster": cluster,
            "cluster_similarity": np.cos(a),
            "clip_score": abs(a),
        }
        for a in angles
    ]


def within(degrees: float) -> float:
    return float(1 - np.cos(np.radians(degrees)))


def test_the_farthest_from_the_centroid_stays(judge: Judge) -> None:
    dropped = judge(SemanticDuplicates(epsilon=within(6)), at(0, 5, 20))
    assert dropped == {"u000": ("cosine 0.996 to a kept image, > 0.995", "u001")}
    assert set(judge(SemanticDuplicates(epsilon=within(6), keep="nearest"), at(0, 5, 20))) == {"u001"}
    assert set(judge(SemanticDuplicates(epsilon=within(6), keep="highest_clip_score"), at(0, 5, -20))) == {"u000"}


def test_chains_do_not_join_by_the_greedy_rule_and_do_by_the_published_one(judge: Judge) -> None:
    rows = at(0, 5, 10)  # best first: 10, 5, 0; 0 is too far from 10
    assert set(judge(SemanticDuplicates(epsilon=within(6)), rows)) == {"u001"}
    dropped = judge(SemanticDuplicates(epsilon=within(6), rule="published"), rows)
    assert dropped == {
        "u000": ("cosine 0.996 to a dropped image, > 0.995", None),
        "u001": ("cosine 0.996 to a kept image, > 0.995", "u002"),
    }


def test_other_clusters_and_missing_embeddings_do_not_count(judge: Judge) -> None:
    rows = [*at(3, cluster=0), *at(3, cluster=1), {"clip_image": None, "cluster": None, "cluster_similarity": None}]
    assert judge(SemanticDuplicates(epsilon=0.5), rows) == {}
    assert len(judge(SemanticDuplicates(epsilon=0.5), [*rows, *at(3, cluster=1)])) == 1


def plain(vectors: np.ndarray, bound: float, chained: bool) -> np.ndarray:
    """The rules as one loop: who stays."""
    kept: list[int] = []
    for n in range(len(vectors)):
        earlier = range(n) if chained else kept
        if not any(vectors[n] @ vectors[e] > bound for e in earlier):
            kept.append(n)
    return np.isin(np.arange(len(vectors)), kept)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.floats(0.5, 0.99), st.booleans(), st.integers(1, 20))
def test_blocks_decide_as_one_loop_does(seed: int, count: int, bound: float, chained: bool, block: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (vectors @ vectors.T)[np.tril_indices(count, -1)]
    if len(cosines) and np.abs(cosines - bound).min() < 1e-5:
        return  # so close that rounding may decide
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic_duplicates, "BLOCK", block)
        kept, cosine, of = decide(vectors, bound, chained)
    assert (kept == plain(vectors, bound, chained)).all()
    named = of >= 0
    assert not (named & kept).any() and kept[of[named]].all() and (of[named] < np.flatnonzero(named)).all()
    assert (cosine[~kept] > bound).all()
    assert chained or named[~kept].all()
    earlier_kept = np.where(np.tril(np.ones((count, count), bool), -1) & kept, vectors @ vectors.T, -2)
    assert np.allclose(cosine[named], earlier_kept.max(axis=1)[named], atol=1e-5)


def test_planted_copies_are_found_among_many_clusters(judge: Judge) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(600, 64))
    vectors = np.concatenate([vectors, vectors[:150] + random.normal(0, 0.05, (150, 64))])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [
        {"clip_image": v.tolist(), "cluster": n % 600 % 7, "cluster_similarity": float(random.random())}
        for n, v in enumerate(vectors)
    ]
    dropped = judge(SemanticDuplicates(epsilon=0.05), rows)
    assert {tuple(sorted((int(a[1:]), int(b[1:])))) for a, (_, b) in dropped.items() if b} == {
        (n, n + 600) for n in range(150)
    }
