"""All pairs of 64-bit hashes within a Hamming distance, found exactly without comparing each with each.

Multi-index hashing (Norouzi, Punjani and Fleet 2012): cut the hashes into bands and give band i a radius t_i.
Where the t_i + 1 add up to more than the distance, two hashes within it agree in some band up to its radius (or
each band would differ in at least t_i + 1 bits). So it is enough to look up, in a table of each band, the few
keys within its radius, and to verify what is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

BLOCK = 1 << 18  # queries looked up at once, candidates verified at once: the work arrays stay in the cache
MOST_KEY_BITS = 24  # a table of 64 MiB
LOOKUP, VERIFY = 1.0, 1.5  # what one lookup and one candidate cost, relative to each other
NONE = 255  # the distance where no hash is near

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Positions left and right (int64), and the bits that differ (uint8)."""


@dataclass(frozen=True)
class Band:
    """Bits `shift` to `shift + bits` of a hash, looked up with up to `radius` of them flipped."""

    shift: int
    bits: int
    radius: int

    def keys(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes >> np.uint64(self.shift)).astype(np.uint32) & np.uint32((1 << self.bits) - 1)

    def masks(self) -> Iterator[int]:
        """What to flip: each choice of at most `radius` bits of a key, those with the same top bit together."""
        yield 0
        for top in range(self.bits):
            for others in range(min(self.radius, top + 1)):
                for low in combinations(range(top), others):
                    yield 1 << top | sum(1 << bit for bit in low)

    @property
    def probes(self) -> int:
        return sum(comb(self.bits, flips) for flips in range(self.radius + 1))


def choose_bands(count: int, max_distance: int, width: int = 64, most_bits: int = MOST_KEY_BITS) -> list[Band]:
    """The bands of at most so many bits that make looking up one hash among `count` cheapest: few wide ones for many
    hashes."""

    def cost(bands: list[Band]) -> float:
        return sum(b.probes * (LOOKUP + VERIFY * count / 2**b.bits) + 2**b.bits / max(count, 1) for b in bands)

    options = [cut(width, parts, max_distance) for parts in range(-(-width // most_bits), width // 4 + 1)]
    return min(options, key=cost)


def cut(width: int, parts: int, max_distance: int) -> list[Band]:
    """Cut `width` bits into `parts` bands whose radii suffice for `max_distance`; a band of radius -1 is left out."""
    widths = [width // parts + (n < width % parts) for n in range(parts)]
    radii = share_out(parts, max_distance)
    shifts = np.cumsum([0, *widths[:-1]]).tolist()
    return [Band(*band) for band in zip(shifts, widths, radii, strict=True) if band[2] >= 0]


def share_out(parts: int, max_distance: int) -> list[int]:
    """The radii of so many bands that suffice for a distance; -1 for one that is not needed.

    >>> share_out(4, 7), share_out(3, 1)
    ([1, 1, 1, 1], [-1, 0, 0])
    """
    return [(max_distance + 1) // parts + (n >= parts - (max_distance + 1) % parts) - 1 for n in range(parts)]


Sorted = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Positions in the order of a band's keys, the hashes in that order, and where each key begins."""


def _sort(hashes: np.ndarray, band: Band) -> Sorted:
    keys = band.keys(hashes)
    order = np.argsort(keys, kind="stable").astype(np.int32)
    starts = np.zeros((1 << band.bits) + 1, np.int32)
    np.cumsum(np.bincount(keys, minlength=1 << band.bits), out=starts[1:])
    return order, hashes[order], starts


class HashTable:
    """Hashes of `width` bits, uint64 (n,), to look up others in. Holds about 12 bytes per hash and band."""

    def __init__(self, hashes: np.ndarray, max_distance: int, width: int = 64, most_bits: int = MOST_KEY_BITS) -> None:
        self.max_distance = max_distance
        self.bands = choose_bands(len(hashes), max_distance, width, most_bits)
        self.sorted: Sequence[Sorted] = [_sort(hashes, band) for band in self.bands]

    @classmethod
    def stored(cls, bands: Sequence[Band], tables: Sequence[Sorted], max_distance: int) -> HashTable:
        """A table from its parts, for any distance: its bands share out the radii, whatever theirs are."""
        found = cls.__new__(cls)
        radii = share_out(len(bands), max_distance)
        used = [n for n, radius in enumerate(radii) if radius >= 0]
        found.max_distance = max_distance
        found.bands = [Band(bands[n].shift, bands[n].bits, radii[n]) for n in used]
        found.sorted = [tables[n] for n in used]
        return found

    def near(self, queries: np.ndarray) -> Iterator[Pairs]:
        """The pairs (query, hash) at most `max_distance` apart: each once, in no order, in parts."""
        for number, (band, (order, ordered, starts)) in enumerate(zip(self.bands, self.sorted, strict=True)):
            by_key = np.argsort(band.keys(queries), kind="stable")  # neighbours look up neighbours
            for block in np.array_split(by_key, max(1, -(-len(queries) // BLOCK))):
                asked = queries[block]
                keys = band.keys(asked)
                for mask in band.masks():
                    for left, place in _lookup(keys ^ np.uint32(mask), starts):
                        left, right, bits = self._verify(number, asked, left, ordered, place)
                        yield block[left], order[right].astype(np.int64), bits

    def pairs(self) -> Iterator[Pairs]:
        """The pairs among the hashes themselves, each once, one way round."""
        for number, (band, (order, ordered, starts)) in enumerate(zip(self.bands, self.sorted, strict=True)):
            for start in range(0, len(ordered), BLOCK):
                asked = ordered[start : start + BLOCK]
                keys = band.keys(asked)
                top, some, some_keys = 0, np.arange(len(asked)), keys
                for mask in band.masks():
                    if mask.bit_length() != top:  # of two keys that a mask takes to each other, one looks up
                        top = mask.bit_length()
                        some = np.flatnonzero(keys >> np.uint32(top - 1) & np.uint32(1))
                        some_keys = keys[some]
                    for left, place in _lookup(some_keys ^ np.uint32(mask), starts):
                        mine = some[left]
                        if mask == 0:
                            once = place > start + mine
                            mine, place = mine[once], place[once]
                        mine, place, bits = self._verify(number, asked, mine, ordered, place)
                        yield order[start + mine].astype(np.int64), order[place].astype(np.int64), bits

    def _verify(
        self, number: int, asked: np.ndarray, left: np.ndarray, ordered: np.ndarray, place: np.ndarray
    ) -> Pairs:
        """Of candidates, those within the distance that no earlier band has found."""
        differ = asked[left] ^ ordered[place]
        bits = np.bitwise_count(differ)
        near = np.flatnonzero(bits <= self.max_distance)
        for band in self.bands[:number]:
            new = np.bitwise_count(band.keys(differ[near])) > band.radius
            near = near[new]
        return left[near], place[near], bits[near]


def _lookup(keys: np.ndarray, starts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What has the keys: positions in `keys` and places in the sorted table, in parts of about `BLOCK`."""
    first = starts[keys]
    count = starts[keys + np.uint32(1)] - first
    found = np.flatnonzero(count)
    if len(found) == 0:
        return
    first, count = first[found], count[found]
    ends = np.cumsum(count, dtype=np.int64)
    cuts = np.searchsorted(ends, np.arange(BLOCK, ends[-1], BLOCK))
    for part in np.split(np.arange(len(found)), cuts) if len(cuts) else [slice(None)]:
        size = count[part]
        if len(size):
            offset = np.cumsum(size, dtype=np.int64) - size
            place = np.arange(int(offset[-1] + size[-1])) + np.repeat(first[part] - offset, size)
            yield np.repeat(found[part], size), place


def near_pairs(hashes: np.ndarray, max_distance: int, width: int = 64) -> Pairs:
    """All pairs of distinct hashes, uint64 (n,), at most `max_distance` bits apart, each once with left < right.

    Only the lower `width` bits of a hash may be set.
    """
    parts = list(HashTable(hashes, max_distance, width).pairs()) if len(hashes) > 1 and max_distance > 0 else []
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
    one, other, bits = (np.concatenate(column) for column in zip(*parts, strict=True))
    left, right = np.minimum(one, other), np.maximum(one, other)
    order = np.lexsort((right, left))
    return left[order], right[order], bits[order]


def nearest_hash(queries: np.ndarray, base: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of `base` (m,) for each of `queries` (n,), uint64, within `radius` bits.

    Returns distances, uint8 (n,), `NONE` where there is none, and positions in `base`, int64 (n,), the first of equal
    ones, -1 where there is none.
    """
    distance, place = np.full(len(queries), NONE, np.uint8), np.full(len(queries), -1, np.int64)
    for query, found, bits in HashTable(base, radius).near(queries) if len(queries) and len(base) else ():
        order = np.lexsort((found, bits, query))
        query, first = np.unique(query[order], return_index=True)
        bits, found = bits[order][first], found[order][first]
        better = (bits < distance[query]) | ((bits == distance[query]) & (found < place[query]))
        distance[query[better]], place[query[better]] = bits[better], found[better]
    return distance, place
