"""Groups around one survivor each, where whether two items are alike is costly to tell and so is asked seldom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from filters._alignment import compose, inverse

Alike = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""For pairs of items and a guess where the right lies in the left: whether they are copies, how alike, and where."""


@dataclass(frozen=True)
class Guesses:
    """Pairs that may be copies: items left and right, int64 (n,), and where the right may lie in the left (n, 2, 3)."""

    left: np.ndarray
    right: np.ndarray
    warp: np.ndarray

    def __len__(self) -> int:
        return len(self.left)

    def take(self, rows: np.ndarray) -> Guesses:
        return Guesses(self.left[rows], self.right[rows], self.warp[rows])

    def turned(self) -> Guesses:
        return Guesses(self.right, self.left, inverse(self.warp))

    def joined(self, other: Guesses) -> Guesses:
        return Guesses(*(np.concatenate(pair) for pair in zip(self._columns(), other._columns(), strict=True)))

    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.left, self.right, self.warp


def stars(count: int, guesses: Guesses, alike: Alike) -> tuple[np.ndarray, np.ndarray]:
    """Decide who stays, from item 0 (best) to the last: an item goes if it is a copy of one that stays.

    Only pairs of which one stays are compared. Where an item goes, those that might be its copies are compared with
    its survivor, so a copy of a copy is found although the two have no hash in common.

    Returns:
        For each item (count,) the kept item it is a copy of, the most alike and then the best, or -1; and how
        alike they are (count,).
    """
    survivor, score = np.full(count, -1, np.int64), np.zeros(count, np.float32)
    kept = np.zeros(count, bool)
    asked = np.zeros(0, np.uint64)
    while len(guesses):
        chosen = _choose(count, guesses, kept | (survivor >= 0))
        kept[chosen] = True
        now = kept[guesses.left] | kept[guesses.right]
        pairs, guesses = guesses.take(np.flatnonzero(now)), guesses.take(np.flatnonzero(~now))
        pairs = _kept_left(pairs, kept)
        asked = np.union1d(asked, _keys(pairs))
        copies, likeness, warp = alike(pairs.left, pairs.right, pairs.warp)
        found = Guesses(pairs.left, pairs.right, warp).take(np.flatnonzero(copies))
        best = np.lexsort((found.left, -likeness[copies], found.right))
        gone, first = np.unique(found.right[best], return_index=True)
        first = best[first]
        survivor[gone], score[gone] = found.left[first], likeness[copies][first]
        guesses = _handed_on(guesses, found.take(first), survivor, kept)
        fresh = ~(np.isin(_keys(guesses), asked) & (kept[guesses.left] | kept[guesses.right]))
        guesses = guesses.take(np.flatnonzero(fresh))
    return survivor, score


def _choose(count: int, guesses: Guesses, decided: np.ndarray) -> np.ndarray:
    """Items to keep now: those with no better one within two steps, and none that waits for a decision."""
    best = np.arange(count)
    best[decided] = -1  # a neighbour that stays comes first: it must be compared before
    for _ in range(2):
        near = best.copy()
        np.minimum.at(near, guesses.left, best[guesses.right])
        np.minimum.at(near, guesses.right, best[guesses.left])
        best = near
    touched = np.unique(np.concatenate([guesses.left, guesses.right]))
    return touched[best[touched] == touched]


def _kept_left(pairs: Guesses, kept: np.ndarray) -> Guesses:
    """The pairs whose one side stays, and the other is undecided, with the side that stays on the left."""
    other = pairs.take(np.flatnonzero(~kept[pairs.left])).turned()
    return pairs.take(np.flatnonzero(kept[pairs.left] & ~kept[pairs.right])).joined(other)


def _handed_on(guesses: Guesses, found: Guesses, survivor: np.ndarray, kept: np.ndarray) -> Guesses:
    """Guesses about items that went become guesses about their survivors; those between decided items end."""
    where = np.full(len(survivor), -1, np.int64)
    where[found.right] = np.arange(len(found))
    both = guesses.joined(guesses.turned())
    both = both.take(np.flatnonzero((where[both.left] >= 0) & (survivor[both.right] < 0)))
    through = found.take(where[both.left])
    new = Guesses(through.left, both.right, compose(through.warp, both.warp))
    still = (survivor[guesses.left] < 0) & (survivor[guesses.right] < 0)
    return guesses.take(np.flatnonzero(still)).joined(new.take(np.flatnonzero(new.left != new.right)))


def _keys(pairs: Guesses) -> np.ndarray:
    low, high = np.minimum(pairs.left, pairs.right), np.maximum(pairs.left, pairs.right)
    return low.astype(np.uint64) << np.uint64(32) | high.astype(np.uint64)
