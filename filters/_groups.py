"""Near-duplicate groups that hold together: every dropped sample is a near duplicate of its own survivor."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.contract import GENERATION

NOBODY = np.zeros(0, bool)


def priority_order(t: pa.Table, best_first: str | None = None) -> np.ndarray:
    """Row positions from the sample to prefer to the least: highest `best_first`, ties by uid, then by row.

    Where the rows have a `generation`, the earlier ones come first.
    """
    keys = [("uid", "ascending"), ("row", "ascending")]
    if best_first is not None:
        keys.insert(0, (best_first, "descending"))  # nulls come last
    if GENERATION in t.column_names:
        keys.insert(0, (GENERATION, "ascending"))
    return pc.sort_indices(t, sort_keys=keys).to_numpy()


def survivors(
    count: int, left: np.ndarray, right: np.ndarray, distance: np.ndarray, settled: np.ndarray = NOBODY
) -> np.ndarray:
    """Decide who stays, going from item 0 (best) to the last: an item stays unless a kept one is its neighbour.

    Args:
        count: how many items there are, numbered by preference.
        left, right: the pairs of near duplicates (pairs,), any order, either direction.
        distance: how far apart each pair is (pairs,).
        settled: whether each of the first items stays, if that is decided already: bool (m,).

    Returns:
        For each item (count,) the kept item it duplicates, the nearest and then the best, or -1 for a kept
        or settled one. Chains do not join: two items far apart are not merged because a third lies between them.
    """
    better, worse = np.minimum(left, right), np.maximum(left, right)
    undecided = np.ones(count, bool)
    kept = np.zeros(count, bool)
    undecided[: len(settled)], kept[: len(settled)] = False, settled
    undecided[worse[kept[better]]] = False
    while undecided.any():
        # Every undecided item without a better undecided neighbour stays: all such at once give the same
        # answer as one after the other.
        live = undecided[better] & undecided[worse]
        waiting = np.zeros(count, bool)
        waiting[worse[live]] = True
        chosen = undecided & ~waiting
        kept |= chosen
        undecided &= ~chosen
        undecided[worse[chosen[better]]] = False
    near = kept[better] & ~kept[worse] & (worse >= len(settled))
    pairs = np.lexsort((better[near], distance[near], worse[near]))
    dropped, first = np.unique(worse[near][pairs], return_index=True)
    found = np.full(count, -1, np.int64)
    found[dropped] = better[near][pairs][first]
    return found


def places(group: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Each item's place in its group, from 0: groups (n,), and item positions with groups together, best first (n,)."""
    found = np.empty(len(group), np.int64)
    found[order], _ = runs(group[order])
    return found


def runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of values with equal ones together (n,), each one's place among its equals, from 0, and how many they are."""
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])
    size = np.diff(np.append(starts, len(values)))
    return np.arange(len(values)) - np.repeat(starts, size), np.repeat(size, size)
