"""Who stays of images whose hashes are within a distance, told bit by bit, after those decided earlier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from filters._columns import PLACES, Keys, Near, Texts, Values
from filters._groups import survivors
from filters._hamming import near_pairs
from filters._memory import MOST_ROWS, Past, Run


class Decided(NamedTuple):
    """Distinct hashes, earlier ones (m,) first and then new ones by their best image, and what was decided of them."""

    earlier: np.ndarray  # int64 (m,): their rows in the past
    hashes: np.ndarray  # uint64 (items,)
    best: np.ndarray  # int64 (items - m,): the best image of each new one
    leader: np.ndarray  # int64 (items,): the item that each is a copy of, or itself
    item: np.ndarray  # int64 (images,): each image's


def decide_hashes(hashes: np.ndarray, max_distance: int, width: int, past: Past) -> Decided:
    """Decide on images with `hashes` of so many bits, uint64 (images,), best first."""
    # Equal hashes are one item, or a pool of blank images would be a quadratic number of pairs.
    unique, best, item = np.unique(hashes, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(best))  # items numbered by their best member
    unique, best, item = unique[np.argsort(best)], np.sort(best), rank[item]
    known, same = past.ends("hash", unique, 1)
    fresh = np.ones(len(unique), bool)
    fresh[known] = False
    query, old, bits = _near_earlier(unique[fresh], max_distance, past)
    earlier, leader = _with_leaders(np.union1d(same, old), past)
    m = len(earlier)
    number = m + np.cumsum(fresh) - 1
    number[known] = np.searchsorted(earlier, same)
    items = np.concatenate([past.values("value", earlier) if m else unique[:0], unique[fresh]])
    left, right, distance = near_pairs(unique[fresh], max_distance, width)
    left = np.concatenate([np.searchsorted(earlier, old), m + left])
    right, distance = np.concatenate([m + query, m + right]), np.concatenate([bits, distance])
    of_item = survivors(len(items), left, right, distance, settled=leader == np.arange(m))
    of_item = np.where(of_item >= 0, of_item, np.arange(len(items)))
    of_item[:m] = leader
    return Decided(earlier, items, best[fresh], of_item, number[item])


def _near_earlier(hashes: np.ndarray, max_distance: int, past: Past) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Earlier kept hashes near new ones: places of the new ones (n,), rows of the earlier ones (n,), bits (n,)."""
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))]
    if max_distance:
        found += [(query, place // PLACES, bits) for query, place, bits in past.near("kept", hashes, max_distance)]
    query, row, bits = (np.concatenate(column) for column in zip(*found, strict=True))
    return query, row, bits


def _with_leaders(rows: np.ndarray, past: Past) -> tuple[np.ndarray, np.ndarray]:
    """Some earlier items and those that they are copies of: their rows, ascending (m,), and the place of each's."""
    if not len(rows):
        return rows, rows
    rows = np.union1d(rows, past.values("leader", rows))
    return rows, np.searchsorted(rows, past.values("leader", rows))


def hash_runs(decided: Decided, uids: pa.ChunkedArray, past: Past) -> Iterator[Run]:
    """The runs that remember the new items, given the uids of their best images."""
    m, first = len(decided.earlier), past.rows
    numbers = np.concatenate([decided.earlier, first + np.arange(len(decided.best))])
    hashes, leader = decided.hashes[m:], numbers[decided.leader[m:]]
    for start in range(0, len(hashes), MOST_ROWS):
        part = slice(start, start + MOST_ROWS)
        kept = np.flatnonzero(leader[part] == numbers[m:][part])
        columns = {
            "hash": Keys.of(hashes[part]), "value": Values([hashes[part]]), "leader": Values([leader[part]]),
            "kept": Near.of(hashes[part][kept], kept * PLACES, 8), "uid": Texts.of(uids.slice(start, MOST_ROWS)),
        }  # fmt: skip
        yield Run(first + start, len(hashes[part]), columns)
