"""Multi-index hashing finds exactly what comparing all with all finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters._hamming import HashTable, choose_bands, cut, near_pairs


def neighbours(count: int, seed: int) -> np.ndarray:
    """Random hashes, two thirds of them with a neighbour at a distance of 1 to 13."""
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, count, dtype=np.uint64)
    for n in range(0, count * 2 // 3, 2):
        bits = random.choice(64, 1 + n // 2 % 13, replace=False).astype(np.uint64)
        hashes[n + 1] = hashes[n] ^ np.bitwise_or.reduce(np.uint64(1) << bits)
    return np.unique(hashes)


@pytest.mark.parametrize("max_distance", [1, 4, 7, 8, 10, 11])
@pytest.mark.parametrize("count", [50, 3000])
def test_every_pair_within_the_distance_is_found_once(count: int, max_distance: int) -> None:
    hashes = neighbours(count, max_distance)
    left, right, bits = near_pairs(hashes, max_distance)
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    expected = np.argwhere(np.triu(distance <= max_distance, 1))
    assert (np.stack([left, right], axis=1) == expected).all() and len(expected) > 0
    assert (bits == distance[left, right]).all()


@pytest.mark.parametrize("max_distance", [0, 5, 7])
def test_looking_up_others_finds_every_pair_once(max_distance: int) -> None:
    hashes = neighbours(2000, 3)
    table, queries = HashTable(hashes[::2], max_distance), hashes[1::2]
    found = [np.stack(part[:2], axis=1) for part in table.near(queries)]
    pairs = np.concatenate(found) if found else np.zeros((0, 2), int)
    distance = np.bitwise_count(queries[:, None] ^ hashes[::2][None, :])
    assert len(pairs) == len(np.unique(pairs, axis=0))
    assert {tuple(p) for p in pairs.tolist()} == {tuple(p) for p in np.argwhere(distance <= max_distance).tolist()}


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 2**42 - 1), max_size=40), st.integers(0, 11))
def test_narrow_hashes(values: set[int], max_distance: int) -> None:
    hashes = np.array(sorted(values), np.uint64)
    left, right, _ = near_pairs(hashes, max_distance, width=42)
    all_pairs = {(a, b) for a in range(len(hashes)) for b in range(a + 1, len(hashes))}
    near = {(a, b) for a, b in all_pairs if int(hashes[a] ^ hashes[b]).bit_count() <= max_distance}
    assert set(zip(left.tolist(), right.tolist(), strict=True)) == near


def test_the_radii_of_the_bands_suffice_and_no_table_is_huge() -> None:
    for count in (1, 100, 10**5, 10**6, 10**7, 10**9):
        for max_distance in range(12):
            bands = choose_bands(count, max_distance)
            assert sum(band.radius + 1 for band in bands) > max_distance
            assert sum(band.bits for band in bands) <= 64 and max(band.bits for band in bands) <= 24
    assert [band.bits for band in cut(64, 3, 8)] == [22, 21, 21]


def test_masks_flip_each_choice_of_bits_once() -> None:
    band = cut(64, 8, 15)[0]
    masks = list(band.masks())
    assert len(masks) == len(set(masks)) == band.probes
    assert all(mask.bit_count() <= band.radius for mask in masks)
