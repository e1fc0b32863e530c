"""Locality-sensitive hashing of MinHash signatures: pairs that share a band are candidates."""

from __future__ import annotations

import numpy as np

from filters._shingles import mix

MISSED = 0.005
"""The share of pairs at the bound itself that may be missed; of pairs more alike, fewer are."""
SMALL = 16
"""Items on either side that one is compared with; in a bucket of twice as many and one, all are."""
LEADERS = 4
"""Items of a larger bucket that the others of it are compared with: the best, and so those that may stay."""


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


def candidates(keys: np.ndarray) -> np.ndarray:
    """Pairs of items that share a band's key: uint32 (bands, n) to sorted uint64 (pairs,), better << 32 | worse.

    Items are numbered by preference. In a small bucket all pairs are found; in a large one, each item with the
    best and with the one before it, so that a family of a thousand captions is not half a million pairs.
    """
    found = np.zeros(0, np.uint64)
    pending: list[np.ndarray] = []
    waiting = 0
    for band in keys:
        pending.append(_bucket_pairs(band))
        waiting += len(pending[-1])
        if waiting > max(keys.shape[1], len(found)):
            found, pending, waiting = _merged([found, *pending]), [], 0
    return _merged([found, *pending])


def _merged(parts: list[np.ndarray]) -> np.ndarray:
    pairs = np.concatenate(parts)
    pairs.sort()
    return pairs[np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]]


def _bucket_pairs(keys: np.ndarray) -> np.ndarray:
    """Pairs of items with equal keys, uint32 (n,) to uint64 (pairs,)."""
    if len(keys) < 2:
        return np.zeros(0, np.uint64)
    ordered = keys.astype(np.uint64) << np.uint64(32)
    ordered |= np.arange(len(keys), dtype=np.uint64)
    ordered.sort()
    bucket = ordered >> np.uint64(32)
    same = bucket[1:] == bucket[:-1]
    shared = np.append(False, same) | np.append(same, False)
    item, bucket = ordered[shared] & np.uint64(0xFFFFFFFF), bucket[shared]
    starts = np.flatnonzero(np.append(True, bucket[1:] != bucket[:-1])[: len(bucket)])
    size = np.diff(np.append(starts, len(item)))
    place = np.arange(len(item)) - np.repeat(starts, size)
    large = np.repeat(size > 2 * SMALL + 1, size)
    back, ahead = np.where(large, 1, SMALL), np.where(large, LEADERS, SMALL)
    pairs = []
    for step in range(1, min(SMALL, int(place.max(initial=0))) + 1):
        later = np.flatnonzero((place >= step) & (back >= step))
        pairs.append(item[later - step] << np.uint64(32) | item[later])
    for first in range(min(SMALL, int(place.max(initial=0)))):
        later = np.flatnonzero((place > first + back) & (ahead > first))  # those nearer are paired already
        pairs.append(item[later - place[later] + first] << np.uint64(32) | item[later])
    return np.concatenate([np.zeros(0, np.uint64), *pairs])
