"""Pairs of images that may be copies of each other, by the hashes of their views."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from filters._alignment import compose, identity
from filters._groups import runs
from filters._hamming import HashTable, near_pairs
from filters._stars import Guesses
from filters._views import EVEN_WINDOWS, FLAT, PARTS, turn_warps, window_warps

PART_DISTANCE = 7
WINDOW_DISTANCE, EVEN_DISTANCE = 5, 7
FOLLOWERS = 4  # of images with equal hashes each is compared with the best of them and so many before it


class Hashes:
    """The hashes of n images, best first: whole and turned ones, uint64 (turns, n), and parts (4, n)."""

    def __init__(self, views: np.ndarray, order: np.ndarray, turns: list[int], max_distance: int) -> None:
        """Take the views of images, uint64 (n, PARTS.stop), in the `order` of places given, best first (n,).

        `turns`: which turned ones are asked for.
        """
        self.max_distance = max_distance
        self.turns = [0, *turns]
        self.whole = [views[order, turn] for turn in self.turns]
        self.parts = [views[order, part] for part in PARTS]
        self.leader = _first_of_equals(self.whole[0])

    def guesses(self, windows: Iterable[tuple[np.ndarray, np.ndarray]]) -> Guesses:
        """Guess, given the windows' hashes in parts: images (m,) and hashes uint64 (m, windows)."""
        found = [self._equal_wholes(), self._near_wholes(), *(self._near_parts(part) for part in self.parts)]
        found += self._turned_wholes()
        found += self._windows(windows)
        left, right, code, bits = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.lexsort((code, bits, right, left))
        left, right, code = left[order], right[order], code[order]
        once = np.append(True, (left[1:] != left[:-1]) | (right[1:] != right[:-1]))[: len(left)] & (left != right)
        left, right, code = left[once], right[once], code[once]
        windowed, turned = window_warps()[code >> 3], turn_warps()[code & 7]
        return Guesses(left, right, compose(windowed, turned) if len(left) else identity(0))

    def _equal_wholes(self) -> _Found:
        return _as_found(*_equal_pairs(self.whole[0]))

    def _near_wholes(self) -> _Found:
        return _as_found(*_near_leaders(self.whole[0], self.max_distance))

    def _near_parts(self, part: np.ndarray) -> _Found:
        real = np.flatnonzero(part >= FLAT)
        equal, near = _equal_pairs(part[real]), _near_leaders(part[real], PART_DISTANCE)
        left, right, bits = (np.concatenate(pair) for pair in zip(equal, near, strict=True))
        return _as_found(real[left], real[right], bits)

    def _turned_wholes(self) -> list[_Found]:
        """An image's whole near another's turned whole."""
        images = np.flatnonzero((self.leader == np.arange(len(self.leader))) & (self.whole[0] >= FLAT))
        found = []
        for turn, hashes in zip(self.turns[1:], self.whole[1:], strict=True):
            table = HashTable(hashes[images], self.max_distance)
            for left, right, bits in table.near(self.whole[0][images]):
                found.append((images[left], images[right], np.full(len(left), turn, np.int16), bits))
        return found

    def _windows(self, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[_Found]:
        """A window of an image near another's whole, turned or not."""
        images = np.flatnonzero((self.leader == np.arange(len(self.leader))) & (self.whole[0] >= FLAT))
        wholes = np.concatenate([whole[images] for whole in self.whole])
        even, others = HashTable(wholes, EVEN_DISTANCE), HashTable(wholes, WINDOW_DISTANCE)
        found = []
        for asking, hashes in parts:
            first = self.leader[asking] == asking
            asking, hashes = asking[first], hashes[first]
            for table, begin, end in ((even, 0, EVEN_WINDOWS), (others, EVEN_WINDOWS, hashes.shape[1])):
                image, window = np.nonzero(hashes[:, begin:end] >= FLAT)
                for left, right, bits in table.near(hashes[image, window + begin]):
                    one, other = asking[image[left]], images[right % len(images)]
                    turn = np.array(self.turns, np.int16)[right // len(images)]
                    code = (window[left] + begin + 1).astype(np.int16) * 8 + turn
                    differ = one != other
                    found.append(_nearest(one[differ], other[differ], code[differ], bits[differ]))
        return found


_Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Left and right images, codes, and bits that differ."""


def _as_found(left: np.ndarray, right: np.ndarray, bits: np.ndarray) -> _Found:
    return left, right, np.zeros(len(left), np.int16), bits.astype(np.uint8)


def _nearest(left: np.ndarray, right: np.ndarray, code: np.ndarray, bits: np.ndarray) -> _Found:
    """Of several finds of a pair the nearest."""
    order = np.lexsort((code, bits, right, left))
    left, right = left[order], right[order]
    once = np.append(True, (left[1:] != left[:-1]) | (right[1:] != right[:-1]))[: len(left)]
    return left[once], right[once], code[order][once], bits[order][once]


def _first_of_equals(hashes: np.ndarray) -> np.ndarray:
    """The first place of each hash's value (n,)."""
    _, first, value = np.unique(hashes, return_index=True, return_inverse=True)
    return first[value] if len(hashes) else np.zeros(0, np.int64)


def _equal_pairs(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of places with equal hashes: each with the first and the few before it, not all with all."""
    order = np.argsort(hashes, kind="stable")
    place, _ = runs(hashes[order])
    left, right = [], []
    for back in range(1, FOLLOWERS + 1):
        later = np.flatnonzero(place >= back)
        left.append(order[later - back])
        right.append(order[later])
    late = np.flatnonzero(place > FOLLOWERS)
    left.append(order[late - place[late]])
    right.append(order[late])
    one, other = np.concatenate(left), np.concatenate(right)
    return one, other, np.zeros(len(one), np.uint8)


def _near_leaders(hashes: np.ndarray, max_distance: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of first places of near, distinct hashes."""
    values, first = np.unique(hashes, return_index=True)
    first, values = first[values >= FLAT], values[values >= FLAT]
    left, right, bits = near_pairs(values, max_distance)
    return first[left], first[right], bits
