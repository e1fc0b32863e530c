"""Groups around one survivor each, where whether two items are alike is costly to tell and so is asked seldom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from filters._alignment import compose, identity, inverse

Compared = tuple[np.ndarray, np.ndarray, np.ndarray]
Alike = Callable[[np.ndarray, np.ndarray, np.ndarray], Compared]
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

    def numbered(self, earlier: np.ndarray, first: int) -> Guesses:
        """Numbered anew: some of the items before `first`, ascending, and then those from `first` on."""

        def number(items: np.ndarray) -> np.ndarray:
            return np.where(items < first, np.searchsorted(earlier, items), items - first + len(earlier))

        return Guesses(number(self.left), number(self.right), self.warp)

    def turned(self) -> Guesses:
        return Guesses(self.right, self.left, inverse(self.warp))

    def joined(self, other: Guesses) -> Guesses:
        return Guesses(*(np.concatenate(pair) for pair in zip(self._columns(), other._columns(), strict=True)))

    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.left, self.right, self.warp


@dataclass(frozen=True)
class Links:
    """What was decided of items: which kept item each is a copy of, or -1, int64 (n,); how alike they are (n,); and
    where it lies in that one (n, 2, 3)."""

    survivor: np.ndarray
    score: np.ndarray
    warp: np.ndarray

    def followed_by(self, more: int) -> Links:
        """And some more items that are not decided."""
        return Links(
            np.concatenate([self.survivor, np.full(more, -1, np.int64)]),
            np.concatenate([self.score, np.zeros(more, np.float32)]),
            np.concatenate([self.warp, identity(more)]),
        )

    def after(self, m: int, earlier: np.ndarray, first: int) -> Links:
        """Those behind the first m, whose survivors are numbered as before `Guesses.numbered`."""
        number = np.concatenate([earlier, first + np.arange(len(self.survivor) - m)])
        mine = self.survivor[m:]
        return Links(np.where(mine >= 0, number[mine], -1), self.score[m:], self.warp[m:])


NOTHING = Links(np.zeros(0, np.int64), np.zeros(0, np.float32), identity(0))


def stars(count: int, guesses: Guesses, alike: Alike, generation: np.ndarray | None = None) -> Links:
    """Decide who stays, from item 0 (best) to the last: an item goes if it is a copy of one that stays.

    Only pairs of which one stays are compared. Where an item goes, those that might be its copies are compared with
    its survivor, so a copy of a copy is found although the two have no hash in common. Where items have a
    `generation`, ascending (count,), each is decided before the next, which can change nothing about it.
    """
    links = NOTHING.followed_by(count)
    if generation is None or not len(guesses):
        return settle(0, guesses, links, alike)
    later = np.maximum(generation[guesses.left], generation[guesses.right])
    for now in np.unique(later):
        links = settle(int(np.searchsorted(generation, now)), guesses.take(np.flatnonzero(later == now)), links, alike)
    return links


def settle(first: int, guesses: Guesses, links: Links, alike: Alike) -> Links:
    """Decide on the items from `first` on, after those before it; of each guess one side at least is such an item."""
    survivor, score, warps = links.survivor.copy(), links.score.copy(), links.warp.copy()
    count = len(survivor)
    kept = np.zeros(count, bool)
    kept[:first] = survivor[:first] < 0
    guesses = _about_survivors(guesses, links)
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
        gone, first_of = np.unique(found.right[best], return_index=True)
        first_of = best[first_of]
        survivor[gone], score[gone] = found.left[first_of], likeness[copies][first_of]
        warps[gone] = found.warp[first_of]
        guesses = _handed_on(guesses, found.take(first_of), survivor, kept)
        fresh = ~(np.isin(_keys(guesses), asked) & (kept[guesses.left] | kept[guesses.right]))
        guesses = guesses.take(np.flatnonzero(fresh))
    return Links(survivor, score, warps)


def _about_survivors(guesses: Guesses, links: Links) -> Guesses:
    """Guesses about items that are gone as guesses about their survivors; where there is one already, that is taken."""
    left, right = links.survivor[guesses.left] >= 0, links.survivor[guesses.right] >= 0
    about = guesses.take(np.flatnonzero(left)).joined(guesses.take(np.flatnonzero(right)).turned())
    if not len(about):
        return guesses
    moved = Guesses(links.survivor[about.left], about.right, compose(links.warp[about.left], about.warp))
    plain = guesses.take(np.flatnonzero(~(left | right)))
    via = np.concatenate([np.full(len(plain), -1), about.left])
    guesses = plain.joined(moved)
    order = np.lexsort((via, guesses.right, guesses.left))
    guesses = guesses.take(order)
    once = np.append(True, (guesses.left[1:] != guesses.left[:-1]) | (guesses.right[1:] != guesses.right[:-1]))
    return guesses.take(np.flatnonzero(once))


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
