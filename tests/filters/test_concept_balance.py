"""Common concepts are thinned to about t samples, rare ones stay, and the draws are the uids'."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from filters.concept_balance import ConceptBalance, _hash, draws, uid_hashes
from tests.filters.conftest import Judge


def uid(number: int) -> str:
    return f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}"


def rows(*concepts: list[str] | None) -> list[dict]:
    return [{"uid": uid(n), "concepts": found} for n, found in enumerate(concepts)]


def test_rare_concepts_stay_and_unmatched_captions_go(judge: Judge) -> None:
    dropped = judge(ConceptBalance(max_per_concept=2), rows(["ox"], ["ox", "owl"], [], None))
    said = "names no concept of the list"
    assert dropped == {uid(2): (said, None), uid(3): (said, None)}


def test_a_common_concept_is_thinned_to_its_cap(judge: Judge) -> None:
    dropped = judge(ConceptBalance(max_per_concept=1000), rows(*[["photo"]] * 4000))
    assert abs(len(dropped) - 3000) < 5 * (4000 * 0.25 * 0.75) ** 0.5
    assert {reason for reason, _ in dropped.values()} == {'concept "photo": 4,000 samples, kept with probability 0.25'}


def test_a_rare_concept_saves_a_common_one(judge: Judge) -> None:
    pool = rows(*[["photo"]] * 500, *[["photo", "owl"]] * 5)
    dropped = judge(ConceptBalance(max_per_concept=5), pool)
    assert not {row["uid"] for row in pool[500:]} & set(dropped)


def test_the_reason_names_the_rarest_concept(judge: Judge) -> None:
    dropped = judge(ConceptBalance(max_per_concept=1), rows(*[["a", "photo"]] * 300, *[["photo"]] * 100))
    reasons = Counter(reason for reason, _ in dropped.values())
    assert set(reasons) == {
        'concept "a": 300 samples, kept with probability 0.0033; the rarest of 2',
        'concept "photo": 400 samples, kept with probability 0.0025',
    }


def test_a_larger_cap_keeps_all_that_a_smaller_one_kept(judge: Judge) -> None:
    pool = rows(*[["photo", "dog"][: 1 + n % 2] for n in range(600)])
    dropped = [set(judge(ConceptBalance(max_per_concept=cap), pool)) for cap in (50, 100, 300, 600)]
    assert dropped[0] > dropped[1] > dropped[2] > dropped[3] == set()
    assert set(judge(ConceptBalance(max_per_concept=50, seed=1), pool)) != dropped[0]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    concepts=st.lists(st.lists(st.sampled_from(["dog", "red", "owl", "a cat", "犬"]), unique=True), max_size=60),
    cap=st.integers(1, 8),
)
def test_it_is_metaclips_rule(judge: Judge, concepts: list[list[str]], cap: int) -> None:
    """Algorithm 1, sample by sample, with our draws in the place of `random.random()`."""
    pool = rows(*concepts)
    count = Counter(name for found in concepts for name in found)
    kept = set()
    for row in pool:
        hashed = uid_hashes(pa.array([row["uid"]]))
        for name in row["concepts"]:
            if draws(hashed, np.array([_hash(name)], np.uint64), 0)[0] < cap / max(count[name], cap):
                kept.add(row["uid"])
                break
    assert set(judge(ConceptBalance(max_per_concept=cap), pool)) == {row["uid"] for row in pool} - kept


def test_draws_are_even_and_independent() -> None:
    uids = uid_hashes(pa.array([uid(n) for n in range(20_000)]))
    one, other = (draws(uids, np.full(len(uids), _hash(name), np.uint64), 0) for name in ("dog", "cat"))
    assert abs(one.mean() - 0.5) < 0.01 and abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert np.abs(np.bincount((one * 10).astype(int)) - 2000).max() < 250
