"""Evaluation images are dropped by name, and what cannot be compared stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import RequestError
from curate.recipe import parse_recipe
from filters._hamming import nearest_hash
from filters.decontamination import Decontamination
from tests.filters.conftest import Judge


def test_an_evaluation_image_is_dropped_with_its_name(judge: Judge) -> None:
    rows = [
        {"evaluation_bits": 0, "evaluation_match": "cifar10/s0000012"},
        {"evaluation_bits": 8, "evaluation_match": "x" * 150},
        {"evaluation_bits": 9, "evaluation_match": "cifar10/s0000013"},
        {"evaluation_bits": None, "evaluation_match": None},
    ]
    assert judge(Decontamination(against=["cifar10"]), rows) == {
        "u000": ("phash 0 bits from cifar10/s0000012, <= 8", None),
        "u001": (f"phash 8 bits from ...{'x' * 97}, <= 8", None),
    }


def test_by_embedding_or_by_both(judge: Judge) -> None:
    rows = [
        {"evaluation_bits": None, "evaluation_cosine": 0.97, "evaluation_match_embedding": "a/1"},
        {
            "evaluation_bits": 1,
            "evaluation_match": "a/2",
            "evaluation_cosine": 0.2,
            "evaluation_match_embedding": "a/3",
        },
        {"evaluation_bits": None, "evaluation_cosine": 0.94, "evaluation_match_embedding": "a/4"},
    ]
    both = judge(Decontamination(against=["a"], min_cosine=0.95), rows)
    assert both == {
        "u000": ("cosine 0.970 to a/1, >= 0.950", None),
        "u001": ("phash 1 bits from a/2, <= 8", None),
    }
    assert set(judge(Decontamination(against=["a"], max_distance=None, min_cosine=0.95), rows)) == {"u000"}


def test_it_says_which_columns_of_what_it_needs() -> None:
    it = parse_recipe({"filters": [{"decontamination": {"against": "evals/cifar10"}}]})
    assert it.filters[0].filter.reads == ("evaluation_bits", "evaluation_match")
    assert [f.name for f in it.features] == ["index", "evaluation", "phash"]
    assert it.features[1].model_dump()["against"] == ["evals/cifar10"]
    with pytest.raises(ValidationError, match="give max_distance, min_cosine or both"):
        Decontamination(against=["a"], max_distance=None)
    with pytest.raises(RequestError, match=r"features.evaluation.against to be \['b'\]"):
        parse_recipe({"filters": [{"decontamination": {"against": "a"}}, {"decontamination": {"against": "b"}}]})


@given(st.integers(0, 10**6), st.integers(0, 40), st.integers(1, 60), st.integers(0, 15))
def test_the_nearest_hash_is_the_nearest(seed: int, queries: int, size: int, radius: int) -> None:
    random = np.random.default_rng(seed)
    base = random.integers(0, 2**63, size).astype(np.uint64)
    flips = np.array(
        [sum(1 << int(b) for b in random.choice(64, n, replace=False)) for n in random.integers(0, 22, queries)]
    )
    asked = base[random.integers(0, size, queries)] ^ flips.astype(np.uint64) if queries else base[:0]
    distance, place = nearest_hash(asked, base, radius)
    every = np.bitwise_count(asked[:, None] ^ base[None, :])
    least = every.min(axis=1) if queries else np.zeros(0)
    assert (distance == np.where(least <= radius, least, 255)).all()
    assert (place == np.where(least <= radius, every.argmin(axis=1), -1)).all()
