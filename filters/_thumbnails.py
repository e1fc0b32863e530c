"""The thumbnails of those images that have to be looked at, on disk, so that memory does not grow with the pool."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from types import TracebackType

import numpy as np
import pyarrow as pa

from filters._alignment import PIXELS, SIDE


class Thumbnails:
    """Thumbnails of some items, in a temporary file while the context is open; `[places]` reads them (n, 32, 32)."""

    def __init__(self, items: np.ndarray) -> None:
        """Items: those that will be asked for, sorted (n,)."""
        self._items = items

    def __enter__(self) -> Thumbnails:
        self._file = tempfile.TemporaryFile(buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        # Not mapped: whatever of the file was looked at would count as memory, and reading costs next to nothing
        # beside the comparing.
        parts = [os.pread(self._file.fileno(), PIXELS, place * PIXELS) for place in places.tolist()]
        return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, SIDE, SIDE)

    def put(self, items: np.ndarray, words: np.ndarray) -> None:
        """Keep those of the items that will be asked for: items (m,), eight pixels to a word, uint64 (m, 128)."""
        place = self.at(items)
        mine = np.flatnonzero(self._items[np.minimum(place, len(self._items) - 1)] == items)
        pixels = words[mine].astype("<u8").view(np.uint8)
        for at, data in zip(place[mine].tolist(), pixels.reshape(-1, PIXELS), strict=True):
            os.pwrite(self._file.fileno(), data.data, at * PIXELS)

    def at(self, items: np.ndarray) -> np.ndarray:
        """Where the items' thumbnails are."""
        return np.searchsorted(self._items, items)


def rows_of(rows: pa.ChunkedArray) -> Callable[[pa.Array], np.ndarray]:
    """What finds the places of values in a column of distinct ones."""
    values = rows.to_numpy()
    order = np.argsort(values)
    ordered = values[order]
    return lambda wanted: order[np.searchsorted(ordered, wanted.to_numpy())]


def lists(column: pa.Array) -> np.ndarray:
    """A column of equally long lists of 64-bit words as uint64 (n, length)."""
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.view(np.uint64).reshape(len(column), -1) if len(column) else np.zeros((0, 1), np.uint64)
