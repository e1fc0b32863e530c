"""Copy byte ranges of a file, many small or few large, at the speed of copying it whole."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from io import FileIO

import numpy as np
import xxhash

from curate.errors import WorkError

SPAN = 1 << 20
"""Bytes read at a time: few calls, and what was read is still in the processor's cache when it is written."""
HOLE = 1 << 16
"""Bytes that are not wanted are read along, if they are fewer: cheaper than another call."""

CALL = 500
"""Ranges read by one call: twice as many buffers, of which the system takes 1,024."""


class Sink:
    """A file that is written from its start to its end. `digest` is the 128-bit XXH3 of what was written."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._xxh3 = xxhash.xxh3_128()
        self.size = 0

    @property
    def digest(self) -> str:
        return self._xxh3.hexdigest()

    def write(self, data: bytes | memoryview) -> None:
        self._xxh3.update(data)
        left = memoryview(data)
        self.size += len(left)
        while len(left):
            left = left[self._file.write(left) :]


def copy_ranges(source: FileIO, sink: Sink, offsets: np.ndarray, lengths: np.ndarray) -> None:
    """Append byte ranges of a file, given in order and apart from each other.

    Raises:
        WorkError: the file ends before the last of them does.
    """
    if len(offsets):
        for piece in _pieces(source, memoryview(bytearray(SPAN)), offsets, lengths):
            sink.write(piece)


def _pieces(source: FileIO, view: memoryview, offsets: np.ndarray, lengths: np.ndarray) -> Iterator[memoryview]:
    """The bytes of the ranges, in pieces that lie in the same buffer one after another."""
    waste = memoryview(bytearray(HOLE))
    for begins, ends in _spans(*_joined(offsets, offsets + lengths)):
        if len(begins) == 1:
            for at in range(int(begins[0]), int(ends[0]), SPAN):
                yield _read(source, view[: min(SPAN, int(ends[0]) - at)], at)
        else:
            yield _read_apart(source, view, waste, begins, ends)


def _joined(begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranges (n,) with those that touch made one."""
    first = np.flatnonzero(np.append(True, begins[1:] != ends[:-1]))
    return begins[first], ends[np.append(first[1:], len(begins)) - 1]


def _spans(begins: np.ndarray, ends: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ranges to read in one go: near each other and within `SPAN` together, or a single one of any length."""
    apart = begins[1:] - ends[:-1] > HOLE
    crossing = ends[1:] // SPAN != begins[:-1] // SPAN  # both on one side of a multiple of SPAN: within it together
    cuts = np.union1d(np.flatnonzero(apart | crossing) + 1, np.arange(CALL, len(begins), CALL))
    yield from zip(np.split(begins, cuts), np.split(ends, cuts), strict=True)


def _read(source: FileIO, view: memoryview, at: int) -> memoryview:
    done = 0
    while done < len(view):
        if (count := os.preadv(source.fileno(), [view[done:]], at + done)) == 0:
            raise WorkError(f"{source.name!s} ended while it was copied; it changed since it was measured")
        done += count
    return view


def _read_apart(
    source: FileIO, view: memoryview, waste: memoryview, begins: np.ndarray, ends: np.ndarray
) -> memoryview:
    """Read some ranges side by side into a buffer, by one call that lets what lies between them fall on `waste`."""
    edges = np.concatenate([[0], np.cumsum(ends - begins)]).tolist()
    wanted = [view[a:b] for a, b in itertools.pairwise(edges)]
    holes = [waste[:hole] for hole in (begins[1:] - ends[:-1]).tolist()]
    order = [part for pair in zip(wanted, holes, strict=False) for part in pair] + wanted[-1:]
    if os.preadv(source.fileno(), order, int(begins[0])) < ends[-1] - begins[0]:
        for part, at in zip(wanted, begins.tolist(), strict=True):
            _read(source, part, at)
    return view[: edges[-1]]
