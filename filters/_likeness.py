"""Are two images copies of one picture? Told from their thumbnails, laid over each other."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from filters._alignment import Alignment, align, compose, identity, inverse

LIKENESS = 0.9
"""Edges of copies correlate at least so far: of real photos, copies at 0.93 and more, the most alike others at 0.87."""
SMALL, LARGE, SMALL_LIKENESS = 60.0, 180.0, 0.96
"""Where the edges spread over fewer pixels (of 1024), a thing before an empty background, more is asked: from
LIKENESS at LARGE to SMALL_LIKENESS at SMALL. Two aeroplanes in a blue sky are alike in all but little."""
FAINT, FAINT_LIKENESS, FAINT_DIFFERENCE = 3.0, 0.97, 12.0
"""Where the edges are fainter than so many gray levels, all smooth shades look alike, and more is asked."""
EVEN, EVEN_DIFFERENCE = 1.5, 4.0
"""Images without edges are copies if their gray levels are the same."""
OVERLAP = 0.72  # the share of either image that the other shows; a tenth cut off each side leaves 0.64 of the wider
WIDER = 0.5
COUNTED = 0.38  # the share of the edges that must agree: what differs must be no more than a mark
BLOCK = 128  # pairs at once: their work arrays are a few MiB, and stay in the cache
SURE = 0.96  # not refined any further
PROMISING = 0.45  # less than this after two rounds is no copy: real ones are at 0.68 and more, in CIFAR-10
HOPEFUL = 0.7  # less than this after a few more is not tried from elsewhere


class Pixels(Protocol):
    """An array of images, uint8 (images, 32, 32), or what gives out some of it."""

    def __getitem__(self, places: np.ndarray, /) -> np.ndarray: ...


def likeness(
    thumbnails: Pixels, left: np.ndarray, right: np.ndarray, warp: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare pairs of images.

    Args:
        thumbnails: uint8 (images, 32, 32).
        left, right: places in it (n,).
        warp: where the right images may lie in the left ones (n, 2, 3).

    Returns:
        Whether they are copies (n,), how alike they are, -1 to 1 (n,), and where they lie (n, 2, 3).
    """
    none = thumbnails[left[:0]]
    parts = [_likeness(none, none, warp[:0])]
    for start in range(0, len(left), BLOCK):
        part = slice(start, start + BLOCK)
        parts.append(_likeness(thumbnails[left[part]], thumbnails[right[part]], warp[part]))
    copies, alike, where = (np.concatenate(column) for column in zip(*parts, strict=True))
    return copies, alike, where


def _likeness(left: np.ndarray, right: np.ndarray, warp: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    best = _Best(len(left))
    everyone = np.arange(len(left))
    best.offer(everyone, align(left, right, warp, 0))
    rest = np.flatnonzero(~(best.copies & (best.score >= SURE)))
    best.offer(rest, align(left[rest], right[rest], warp[rest], 2))
    rest = np.flatnonzero(~(best.copies & (best.score >= SURE)) & (best.score >= PROMISING))
    best.offer(rest, align(left[rest], right[rest], best.warp[rest], 3))
    rest = np.flatnonzero(~best.copies & (best.score > HOPEFUL))
    best.offer(rest, align(left[rest], right[rest], best.warp[rest], 8))
    # From the narrower image into the wider one is easier than back; and a frame may hide what the start was.
    for shrink in (0.0, 0.035):
        for turned in (True, False):
            rest = np.flatnonzero(~best.copies & (best.score > HOPEFUL))
            if len(rest):
                _restart(best, left, right, warp, rest, shrink, turned)
    return best.copies, best.score, best.warp


def _restart(
    best: _Best, left: np.ndarray, right: np.ndarray, warp: np.ndarray, rest: np.ndarray, shrink: float, turned: bool
) -> None:
    """Try again from the right image's side, or with a frame of `shrink` around the left or right one."""
    inner = identity(len(rest))
    inner[:, :, 1:] *= 1 - 2 * shrink
    if turned:
        back = align(right[rest], left[rest], compose(inner, inverse(warp[rest])), 8)
        best.offer(rest, back, inverse(back.warp))
    elif shrink:
        best.offer(rest, align(left[rest], right[rest], compose(inner, warp[rest]), 8))


class _Best:
    """The best alignment of each pair so far."""

    def __init__(self, count: int) -> None:
        self.copies = np.zeros(count, bool)
        self.score = np.full(count, -1, np.float32)
        self.warp = identity(count)

    def offer(self, rows: np.ndarray, found: Alignment, warp: np.ndarray | None = None) -> None:
        copies = are_copies(found)
        score = found.score
        mine = self.copies[rows]
        better = (copies & ~mine) | ((copies == mine) & (score > self.score[rows]))
        chosen = rows[better]
        self.copies[chosen], self.score[chosen] = copies[better], score[better]
        self.warp[chosen] = (found.warp if warp is None else warp)[better]


def are_copies(found: Alignment) -> np.ndarray:
    """Which alignments are those of copies: bool (n,)."""
    a, b, c, d = (found.warp[:, i, j] for i in (0, 1) for j in (1, 2))
    shown = np.abs(a * d - b * c) * found.overlap  # the share of the left image that the right one shows
    placed = (found.overlap >= OVERLAP) & (shown >= WIDER) & (shown <= 1.05 / WIDER)
    spread = ((LARGE - found.extent) / (LARGE - SMALL)).clip(0, 1)
    needed = LIKENESS + spread * (SMALL_LIKENESS - LIKENESS)
    same = (found.score >= needed) & (found.counted >= COUNTED)
    faint = found.edges < FAINT
    same &= ~faint | ((found.score >= FAINT_LIKENESS) & (found.difference <= FAINT_DIFFERENCE))
    even = (found.edges < EVEN) & (found.difference <= EVEN_DIFFERENCE) & (found.overlap > 0.95)
    return placed & (same | even)
