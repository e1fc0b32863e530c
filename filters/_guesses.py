"""Pairs of images that may be copies of each other, by the hashes of their views."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
        self.leads = firsts_of_equals(self.whole[0])
        """Which images are the first with the hash of their whole; earlier ones may be known to have it."""
        self.part_leads = [(part >= FLAT) & firsts_of_equals(part) for part in self.parts]

    def guesses(self, windows: Iterable[tuple[np.ndarray, np.ndarray]]) -> Guesses:
        """Guess, given the windows' hashes in parts: images (m,) and hashes uint64 (m, windows)."""
        found = [equal_pairs(self.whole[0])]
        for part in self.parts:
            real = np.flatnonzero(part >= FLAT)
            left, right, code, bits = equal_pairs(part[real])
            found.append((real[left], real[right], code, bits))
        return best_guesses([*found, *self.near(windows)])

    def near(self, windows: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[Found]:
        """Images whose hashes are near, but not equal."""
        yield near_pairs_of(self.whole[0], self.leads & (self.whole[0] >= FLAT), self.max_distance)
        for part, leads in zip(self.parts, self.part_leads, strict=True):
            yield near_pairs_of(part, leads, PART_DISTANCE)
        yield from self._turned_wholes()
        yield from self._windows(windows)

    @property
    def asked(self) -> np.ndarray:
        """The images whose wholes are compared with turned wholes and windows."""
        return np.flatnonzero(self.leads & (self.whole[0] >= FLAT))

    def _turned_wholes(self) -> Iterator[Found]:
        """An image's whole near another's turned whole."""
        images = self.asked
        for turn, hashes in zip(self.turns[1:], self.whole[1:], strict=True):
            table = HashTable(hashes[images], self.max_distance)
            for left, right, bits in table.near(self.whole[0][images]):
                yield images[left], images[right], np.full(len(left), turn, np.int16), bits

    def _windows(self, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[Found]:
        """A window of an image near another's whole, turned or not."""
        images = self.asked
        wholes = np.concatenate([whole[images] for whole in self.whole])
        even, others = HashTable(wholes, EVEN_DISTANCE), HashTable(wholes, WINDOW_DISTANCE)
        for asking, hashes in parts:
            asking, hashes = asking[self.leads[asking]], hashes[self.leads[asking]]
            for table, begin, end in ((even, 0, EVEN_WINDOWS), (others, EVEN_WINDOWS, hashes.shape[1])):
                image, window = np.nonzero(hashes[:, begin:end] >= FLAT)
                for left, right, bits in table.near(hashes[image, window + begin]):
                    one, other = asking[image[left]], images[right % len(images)]
                    turn = np.array(self.turns, np.int16)[right // len(images)]
                    code = window_code(window[left] + begin, turn)
                    differ = one != other
                    yield nearest_of(one[differ], other[differ], code[differ], bits[differ])


def window_code(window: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Says how a pair was found: by which window (n,) of the left image, and by which turn (n,) of the right."""
    return (window + 1).astype(np.int16) * np.int16(8) + turn


Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Left and right images, codes, and bits that differ."""


def best_guesses(found: list[Found]) -> Guesses:
    """The finds as guesses, of each pair the one that differs least."""
    left, right, code, bits = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((code, bits, right, left))
    left, right, code = left[order], right[order], code[order]
    once = np.append(True, (left[1:] != left[:-1]) | (right[1:] != right[:-1]))[: len(left)] & (left != right)
    left, right, code = left[once], right[once], code[once]
    windowed, turned = window_warps()[code >> 3], turn_warps()[code & 7]
    return Guesses(left, right, compose(windowed, turned) if len(left) else identity(0))


def nearest_of(left: np.ndarray, right: np.ndarray, code: np.ndarray, bits: np.ndarray) -> Found:
    """Of several finds of a pair the nearest."""
    order = np.lexsort((code, bits, right, left))
    left, right = left[order], right[order]
    once = np.append(True, (left[1:] != left[:-1]) | (right[1:] != right[:-1]))[: len(left)]
    return left[once], right[once], code[order][once], bits[order][once]


def firsts_of_equals(hashes: np.ndarray) -> np.ndarray:
    """Which hashes (n,) are the first of their value: bool (n,)."""
    first = np.zeros(len(hashes), bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    return first


def equal_pairs(hashes: np.ndarray) -> Found:
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
    return one, other, np.zeros(len(one), np.int16), np.zeros(len(one), np.uint8)


def near_pairs_of(hashes: np.ndarray, some: np.ndarray, max_distance: int) -> Found:
    """Pairs of places left < right with near hashes, of some that are distinct (n,)."""
    place = np.flatnonzero(some)
    left, right, bits = near_pairs(hashes[place], max_distance)
    return place[left], place[right], np.zeros(len(left), np.int16), bits
