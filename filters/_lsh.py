"""Locality-sensitive hashing of MinHash signatures: pairs that share a band are candidates."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from filters._groups import runs
from filters._shingles import mix

MISSED = 0.005
"""The share of pairs at the bound itself that may be missed; of pairs more alike, fewer are."""
SMALL = 16
"""The first 2 x SMALL + 1 items of a bucket are compared with all before them."""
LEADERS = 4
"""Those after them, with the one before and with so many of the first: the best, and so those that may stay."""

RARE = 1e-6
"""The share of pairs at the bound itself whose sketches are too far apart."""


def banding(permutations: int, min_jaccard: float) -> tuple[int, int]:
    """Bands, and rows of each: the longest bands, and so the fewest false candidates, that miss few true ones.

    A pair with similarity J agrees on a row with probability J, so on none of b bands of r rows with
    (1 - J^r)^b (Leskovec et al., Mining of Massive Datasets, ch. 3).

    >>> banding(128, 0.8)
    (21, 6)
    """
    for rows in range(permutations, 1, -1):
        if (1 - min_jaccard**rows) ** (permutations // rows) <= MISSED:
            return permutations // rows, rows
    return permutations, 1


def band_keys(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """Hash each band to 32 bits: signatures (n, permutations) of unsigned integers to uint32 (n, bands).

    Multiply-shift on vectors (Dietzfelbinger 1996): equal bands have equal keys, others one time in four
    billion, and a candidate is verified anyway.
    """
    factors = mix(np.arange(1, bands * rows + 1, dtype=np.uint64)) | np.uint64(1)
    parts = signatures[:, : bands * rows].reshape(-1, bands, rows)
    keys = np.einsum("nbr,br->nb", parts.astype(np.uint64), factors.reshape(bands, rows))
    return (keys >> np.uint64(32)).astype(np.uint32)


def candidates(keys: np.ndarray, likely: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
    """Pairs of items that share a band's key: uint32 (bands, n) to sorted uint64 (pairs,), better << 32 | worse.

    Items are numbered by preference. In a small bucket all pairs are found; in a large one, a later item with the
    best and with the one before it, so that a family of a thousand captions is not half a million pairs. With which
    better ones an item is compared does not depend on the worse ones that share its bucket.
    `likely` says which of some pairs are worth keeping: bool (pairs,); without it, all are.
    """
    found = np.zeros(0, np.uint64)
    pending: list[np.ndarray] = []
    waiting = 0
    for band in keys:
        pairs = _bucket_pairs(band)
        pending.append(pairs if likely is None else pairs[likely(pairs)])
        waiting += len(pending[-1])
        if waiting > 2 * max(keys.shape[1], len(found)):
            pending.append(found)
            found, waiting = _merged(pending), 0
    pending.append(found)
    return _merged(pending)


def sides(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The better and the worse item of pairs better << 32 | worse: int64 (pairs,) each."""
    return (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)


def sketches(signatures: np.ndarray) -> np.ndarray:
    """The lowest bit of each value: signatures (n, permutations) to uint64 (n, words), filled up with zeros.

    Li and König, "b-Bit minwise hashing" (2010), with b = 1.
    """
    count, permutations = signatures.shape
    out = np.zeros((count, -(-permutations // 64) * 8), np.uint8)
    out[:, : -(-permutations // 8)] = np.packbits((signatures & 1).astype(bool), axis=1)
    return out.view(np.uint64)


def most_bits(permutations: int, min_jaccard: float) -> int:
    """In how many bits sketches of captions that are `min_jaccard` alike may differ, but for a share `RARE` of pairs.

    Values that differ, a share 1 - J of them, have different bits half of the time.

    >>> most_bits(128, 0.8)
    31
    """
    share = (1 - min_jaccard) / 2
    beyond, bits = 1.0, -1
    while beyond > RARE:
        bits += 1
        beyond -= math.comb(permutations, bits) * share**bits * (1 - share) ** (permutations - bits)
    return bits


def may_be_alike(sketches: np.ndarray, pairs: np.ndarray, most: int) -> np.ndarray:
    """Of which pairs the sketches, uint64 (words, n), differ in at most so many bits: bool (pairs,)."""
    left, right = sides(pairs)
    differ = np.zeros(len(pairs), np.uint16)
    for word in sketches:
        differ += np.bitwise_count(word[left] ^ word[right])
    return differ <= most


def _merged(parts: list[np.ndarray]) -> np.ndarray:
    """All pairs once, sorted. The list is emptied, so that they are not held twice while they are sorted."""
    pairs = np.concatenate(parts)
    parts.clear()
    pairs.sort()
    return pairs[np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]]


def sorted_order(keys: np.ndarray) -> np.ndarray:
    """The places of uint32 (n,) in their order, equal ones as they came: a stable sort of 16 bits is a radix sort."""
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    return order[np.argsort((keys >> np.uint32(16)).astype(np.uint16)[order], kind="stable")]


def _bucket_pairs(keys: np.ndarray) -> np.ndarray:
    """Pairs of items with equal keys, uint32 (n,) to uint64 (pairs,)."""
    if len(keys) < 2:
        return np.zeros(0, np.uint64)
    order = sorted_order(keys)
    bucket = keys[order]
    same = bucket[1:] == bucket[:-1]
    shared = np.append(False, same) | np.append(same, False)
    item, bucket = order[shared].astype(np.uint64), bucket[shared]
    place, _ = runs(bucket)
    large = place > 2 * SMALL
    pairs = [np.zeros(0, np.uint64)]
    later = np.arange(len(item))
    for step in range(1, SMALL + 1):
        # Far down in a bucket, each with the one before it.
        later = later[(place[later] >= step) & ~large[later]] if step > 1 else np.flatnonzero(place)
        pairs.append(item[later - step] << np.uint64(32) | item[later])
    back, ahead = np.where(large, 1, SMALL), np.where(large, LEADERS, SMALL)
    later = np.flatnonzero(place > back)
    for first in range(SMALL):
        later = later[(place[later] > first + back[later]) & (ahead[later] > first)]  # those nearer are paired already
        pairs.append(item[later - place[later] + first] << np.uint64(32) | item[later])
    return np.concatenate(pairs)
