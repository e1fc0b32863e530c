"""The views of an image that are hashed once, so that a cropped, framed, marked or turned copy is found by its hash.

A copy that lost its margins has the hash of a window of the whole image; a turned copy, that of the image turned;
one with a mark in a corner, that of the part the mark does not touch.
"""

from __future__ import annotations

import numpy as np

Cut = tuple[float, float]
"""The shares of a side that are cut off at its begin and at its end."""

CUTS: tuple[Cut, ...] = (
    (0, 0), (0.05, 0.05), (0.095, 0.095), (0, 0.1), (0.1, 0), (0.02, 0.06), (0.06, 0.02),
    (0.02, 0.02), (0.035, 0.035), (0.065, 0.065), (0.08, 0.08), (0.11, 0.11), (0, 0.33), (0.33, 0),
)  # fmt: skip
_CROSSED = 7  # of these cuts, every one across goes with every one down
_BARS = range(7, 12)  # of these, with none
_EVEN = (1, 2, *_BARS)  # and all that are alike at both ends, with themselves
_FRAMES = ((7, 8), (8, 1), (1, 10))  # and some with the next larger: a frame is a larger share of the shorter side


def _windows() -> list[tuple[int, int]]:
    even = [(cut, cut) for cut in _EVEN] + [pair for a, b in _FRAMES for pair in ((a, b), (b, a))]
    bars = [pair for cut in _BARS for pair in ((cut, 0), (0, cut))]
    crossed = [(across, down) for across in range(_CROSSED) for down in range(_CROSSED)]
    return even + bars + [pair for pair in crossed if pair not in even and pair != (0, 0)]


WHOLE = 0
TURNS: tuple[tuple[bool, int, int], ...] = (
    (False, 1, 1), (False, -1, 1), (False, -1, -1), (True, -1, 1), (True, 1, -1), (False, 1, -1), (True, 1, 1),
    (True, -1, -1),
)  # fmt: skip
"""How an image can be turned: whether its sides are swapped, and then -1 where across or down is reversed."""
TURNED = range(1, len(TURNS))
MIRROR, ROTATIONS = TURNED[:1], TURNED[1:4]
PART_VIEWS: tuple[tuple[int, int], ...] = ((12, 0), (13, 0), (0, 12), (0, 13))
"""Two thirds of the image: without its right, left, lower and upper third, as places in CUTS (across, down)."""
PARTS = range(TURNED.stop, TURNED.stop + len(PART_VIEWS))
WINDOW_VIEWS: tuple[tuple[int, int], ...] = tuple(_windows())
"""The cuts across and down, as places in CUTS."""
WINDOWS = range(PARTS.stop, PARTS.stop + len(WINDOW_VIEWS))
EVEN_WINDOWS = len(_EVEN) + 2 * len(_FRAMES)
"""So many of the windows come first that are cut about alike on all sides, as most crops and frames are."""
VIEWS = WINDOWS.stop
"""How many hashes an image has: whole, turned, parts and windows, in that order."""

FLAT = 64
"""A hash below it is none: the view is one even gray, of that brightness from 0 to 63."""


def window_warps() -> np.ndarray:
    """Where each point (1, x, y) of a window lies in the image, both in [-1, 1]: (1 + windows, 2, 3).

    The first is the whole image, the others are those of `WINDOWS`.
    """
    warps = []
    for across, down in ((0, 0), *WINDOW_VIEWS):
        (left, right), (top, bottom) = CUTS[across], CUTS[down]
        warps.append([[left - right, 1 - left - right, 0], [top - bottom, 0, 1 - top - bottom]])
    return np.array(warps, np.float32)


def turn_warps() -> np.ndarray:
    """Where each point of an image lies when it is turned: (turns, 2, 3)."""
    warps = np.zeros((len(TURNS), 2, 3), np.float32)
    for number, (swapped, across, down) in enumerate(TURNS):
        warps[number, 0, 2 if swapped else 1] = across
        warps[number, 1, 1 if swapped else 2] = down
    return warps
