"""The thumbnails of those images that have to be looked at, on disk, so that memory does not grow with the pool."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from types import TracebackType

import numpy as np
import pyarrow as pa

from filters._alignment import PIXELS, SIDE

SEEN = 1 << 14
"""So many thumbnails, 16 MiB, are looked at before those that are mapped are let go of: the file keeps them."""


class Thumbnails:
    """Thumbnails of some items, in a temporary file while the context is open; `[places]` reads them (n, 32, 32)."""

    def __init__(self, items: np.ndarray) -> None:
        """Items: those that will be asked for, sorted (n,)."""
        self._items = items
        self._seen = 0

    def __enter__(self) -> Thumbnails:
        size = max(1, len(self._items)) * PIXELS
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            self._mapped = mmap.mmap(file.fileno(), size)
        self._pixels = np.frombuffer(self._mapped, np.uint8).reshape(-1, SIDE, SIDE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._pixels
        self._mapped.close()

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        found = self._pixels[places]
        self._touched(len(places))
        return found

    def _touched(self, count: int) -> None:
        self._seen += count
        if self._seen > SEEN and hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)
            self._seen = 0

    def put(self, items: np.ndarray, words: np.ndarray) -> None:
        """Keep those of the items that will be asked for: items (m,), eight pixels to a word, uint64 (m, 128)."""
        place = self.at(items)
        mine = np.flatnonzero(self._items[np.minimum(place, len(self._items) - 1)] == items)
        pixels = words[mine].astype("<u8").view(np.uint8)
        self._pixels[place[mine]] = pixels.reshape(-1, PIXELS).reshape(-1, SIDE, SIDE)
        self._touched(len(mine))

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
