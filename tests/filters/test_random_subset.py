"""A random subset has the size that was asked for, and the same samples in any order."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from filters.random_subset import RandomSubset, places_of
from tests.filters.conftest import Judge

ROWS = [{"uid": f"{n:032x}"} for n in range(100)] + [{"uid": f"photo-{n}"} for n in range(100)]


def kept(judge: Judge, filter: RandomSubset, rows: list[dict[str, str]]) -> set[str]:
    return {row["uid"] for row in rows} - set(judge(filter, rows))


def test_the_size_is_the_one_asked_for(judge: Judge) -> None:
    dropped = judge(RandomSubset(count=30), ROWS)
    assert len(dropped) == 170
    assert set(dropped.values()) == {("not among the 30 drawn of 200, seed 0", None)}
    assert len(kept(judge, RandomSubset(keep_fraction=0.25), ROWS)) == 50
    assert len(kept(judge, RandomSubset(count=500), ROWS)) == 200
    assert judge(RandomSubset(count=5), []) == {}


def test_order_does_not_matter_and_the_seed_does(judge: Judge) -> None:
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    assert kept(judge, RandomSubset(count=50), ROWS) == kept(judge, RandomSubset(count=50), shuffled)
    common = kept(judge, RandomSubset(count=100), ROWS) & kept(judge, RandomSubset(count=100, seed=1), ROWS)
    assert 35 <= len(common) <= 65  # of two independent halves


def test_a_smaller_subset_is_part_of_a_larger_one(judge: Judge) -> None:
    assert kept(judge, RandomSubset(count=20), ROWS) < kept(judge, RandomSubset(count=60), ROWS)


def test_places_are_even() -> None:
    places = places_of(pa.array([f"{n:032x}" for n in range(10_000)]), 3)
    assert len(np.unique(places)) == 10_000
    assert (np.histogram(places.astype(float) / 2**64, 10, (0, 1))[0] > 900).all()


def test_one_size_is_asked_for() -> None:
    for wrong in ({}, {"count": 3, "keep_fraction": 0.1}):
        with pytest.raises(ValidationError, match="give keep_fraction or count"):
            RandomSubset(**wrong)
