from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.near_duplicate_images import NearDuplicateImages, near_pairs
from tests.filters.conftest import Judge


def flipped(value: int, *bits: int) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


def test_the_largest_stays_and_the_reason_counts_bits(judge: Judge) -> None:
    rows = [
        {"uid": "small", "phash": 0xF0F0, "width": 10, "height": 10},
        {"uid": "large", "phash": flipped(0xF0F0, 1, 40, 63), "width": 90, "height": 90},
        {"uid": "other", "phash": 0xFFFF0000FFFF0000, "width": 10, "height": 10},
        {"uid": "unknown", "phash": None, "width": 10, "height": 10},
    ]
    dropped = judge(NearDuplicateImages(max_distance=3), rows)
    assert dropped == {"small": ("phash 3 bits from a kept image's, <= 3", "large")}
    assert judge(NearDuplicateImages(max_distance=2), rows) == {}


def test_a_chain_does_not_merge_what_is_far_apart(judge: Judge) -> None:
    a, b, c = 0, 0b111, 0b111111
    rows = [{"uid": name, "phash": value, "width": 1, "height": 1} for name, value in (("a", a), ("b", b), ("c", c))]
    assert set(judge(NearDuplicateImages(max_distance=3), rows)) == {"b"}


def test_equal_hashes_are_one_group(judge: Judge) -> None:
    rows = [{"uid": f"{n:04d}", "phash": 7, "width": n, "height": 1} for n in range(500)]
    dropped = judge(NearDuplicateImages(max_distance=4), rows)
    assert len(dropped) == 499 and {survivor for _, survivor in dropped.values()} == {"0499"}


@pytest.mark.parametrize("max_distance", [1, 4, 8, 10, 11])
def test_every_pair_within_the_distance_is_found(max_distance: int) -> None:
    random = np.random.default_rng(max_distance)
    hashes = random.integers(0, 2**64, 3000, dtype=np.uint64)
    for n in range(0, 2000, 2):  # neighbours at every distance from 1 to 13
        bits = random.choice(64, 1 + n % 13, replace=False).astype(np.uint64)
        hashes[n + 1] = hashes[n] ^ np.bitwise_or.reduce(np.uint64(1) << bits)
    hashes = np.unique(hashes)
    left, right, bits = near_pairs(hashes, max_distance)
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    expected = np.argwhere(np.triu(distance <= max_distance, 1))
    assert {tuple(p) for p in zip(left, right, strict=True)} == {tuple(p) for p in expected}
    assert (bits == distance[left, right]).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**12 - 1), min_size=1, max_size=40), st.integers(0, 6))
def test_groups_hold_together(values: list[int], max_distance: int) -> None:
    judge_rows = [{"uid": f"{n:03d}", "phash": v, "width": v % 7, "height": 3} for n, v in enumerate(values)]
    from tests.filters.conftest import judge

    dropped = judge.__wrapped__()(NearDuplicateImages(max_distance=max_distance), judge_rows)  # type: ignore[attr-defined]
    of = {row["uid"]: int(row["phash"]) for row in judge_rows}
    for uid, (_, survivor) in dropped.items():
        assert survivor is not None and survivor not in dropped
        assert (of[uid] ^ of[survivor]).bit_count() <= max_distance
    kept = [value for uid, value in of.items() if uid not in dropped]
    assert all((a ^ b).bit_count() > max_distance for i, a in enumerate(kept) for b in kept[:i])
