"""Copy byte ranges of a file, many small or few large, at the speed of copying it whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import FileIO

import numpy as np
import pyarrow as pa
import xxhash

from curate.errors import WorkError

SPAN = 1 << 20
"""Bytes read at a time: few calls, and what was read is still in the processor's cache when it is written."""
HOLE = 1 << 16
"""Bytes that are not wanted are read along, if they are fewer: cheaper than another call."""


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
    if not len(offsets):
        return
    buffer = bytearray(SPAN)
    for begins, ends in _spans(*_joined(offsets, offsets + lengths)):
        if len(begins) == 1:
            for at in range(int(begins[0]), int(ends[0]), SPAN):
                sink.write(_read(source, buffer, at, min(SPAN, int(ends[0]) - at)))
            continue
        data = _read(source, buffer, int(begins[0]), int(ends[-1] - begins[0]))
        sink.write(_without_holes(data, begins - begins[0], ends - begins[0]))


def _joined(begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranges (n,) with those that touch made one."""
    first = np.flatnonzero(np.append(True, begins[1:] != ends[:-1]))
    return begins[first], ends[np.append(first[1:], len(begins)) - 1]


def _spans(begins: np.ndarray, ends: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ranges to read in one go: near each other and within `SPAN` together, or a single one of any length."""
    apart = begins[1:] - ends[:-1] > HOLE
    crossing = ends[1:] // SPAN != begins[:-1] // SPAN  # both on one side of a multiple of SPAN: within it together
    cuts = np.flatnonzero(apart | crossing) + 1
    yield from zip(np.split(begins, cuts), np.split(ends, cuts), strict=True)


def _read(source: FileIO, buffer: bytearray, at: int, size: int) -> memoryview:
    view, done = memoryview(buffer)[:size], 0
    while done < size:
        if (count := os.preadv(source.fileno(), [view[done:]], at + done)) == 0:
            raise WorkError(f"{source.name!s} ended while it was copied; it changed since it was measured")
        done += count
    return view


def _without_holes(data: memoryview, begins: np.ndarray, ends: np.ndarray) -> memoryview:
    """The bytes of some ranges of `data`, one after the other: Arrow takes every second of alternating values."""
    edges = np.stack([begins, ends], axis=1).ravel().astype(np.int32)
    wanted = np.arange(len(edges) - 1) % 2 == 0
    pieces = pa.BinaryArray.from_buffers(
        pa.binary(), len(edges) - 1, [None, pa.py_buffer(edges), pa.py_buffer(data)]
    ).filter(pa.array(wanted))
    return memoryview(pieces.buffers()[2])[: int((ends - begins).sum())]
