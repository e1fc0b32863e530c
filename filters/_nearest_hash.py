"""The nearest of some 64-bit hashes to each of others, exactly, within a distance."""

from __future__ import annotations

import numpy as np

NONE = 255


def nearest_hash(queries: np.ndarray, base: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of `base` (m,) for each of `queries` (n,), uint64, within `radius` bits, 0 to 15.

    Two hashes within `radius` bits share one of four 16-bit parts but for radius // 4 of its bits (Norouzi et al.
    2012, multi-index hashing); so only hashes that do are compared.

    Returns distances, uint8 (n,), 255 where there is none, and positions in `base`, int64 (n,), the first of equal
    ones, -1 where there is none.
    """
    distance, place = np.full(len(queries), NONE, np.uint8), np.full(len(queries), -1, np.int64)
    flips = _flips(radius // 4)
    for part in range(4):
        shift = np.uint64(16 * part)
        of_base = ((base >> shift) & np.uint64(0xFFFF)).astype(np.uint16)
        order = np.argsort(of_base, kind="stable")
        starts = np.searchsorted(of_base[order], np.arange((1 << 16) + 1))
        of_query = ((queries >> shift) & np.uint64(0xFFFF)).astype(np.uint16)
        for flip in flips:
            bucket = (of_query ^ flip).astype(np.int64)
            first, count = starts[bucket], starts[bucket + 1] - starts[bucket]
            query = np.repeat(np.arange(len(queries)), count)
            if len(query) == 0:
                continue
            step = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
            found = order[np.repeat(first, count) + step]
            bits = np.bitwise_count(queries[query] ^ base[found])
            near = np.flatnonzero(bits <= radius)
            _keep_best(distance, place, query[near], bits[near], found[near])
    return distance, place


def _keep_best(distance: np.ndarray, place: np.ndarray, query: np.ndarray, bits: np.ndarray, found: np.ndarray) -> None:
    """Write the best of some candidates over what is known: the nearest, then the first."""
    best = np.lexsort((found, bits, query))
    query, first = np.unique(query[best], return_index=True)
    bits, found = bits[best][first], found[best][first]
    better = (bits < distance[query]) | ((bits == distance[query]) & (found < place[query]))
    distance[query[better]], place[query[better]] = bits[better], found[better]


def _flips(bits: int) -> np.ndarray:
    """All 16-bit numbers with at most so many bits set."""
    every = np.arange(1 << 16, dtype=np.uint16)
    return every[np.bitwise_count(every) <= bits]
