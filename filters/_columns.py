"""The kinds of columns that a filter remembers, each a few arrays: how they are looked up and put together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa

from filters._hamming import MOST_KEY_BITS, Band, HashTable

PLACES = 128
"""Views that a row may have: a view's place is its row x PLACES + its number."""
Parts = Sequence[np.ndarray]
"""An array in parts, one after the other: what is put together need not be in memory at once."""


class Column(ABC):
    """A column of a run, as arrays."""

    @abstractmethod
    def arrays(self) -> Mapping[str, Parts]:
        """What to store."""

    @classmethod
    @abstractmethod
    def stored(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The column again."""

    @classmethod
    @abstractmethod
    def merged(cls, columns: Sequence[Any], firsts: Sequence[int]) -> Self:
        """The columns of runs that follow each other as one; each run's first row is counted from the first's."""


@dataclass(frozen=True)
class Values(Column):
    """A value of each row: (rows, ...)."""

    parts: Parts

    def arrays(self) -> Mapping[str, Parts]:
        return {"values": self.parts}

    @classmethod
    def stored(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        return cls([arrays["values"]])

    @classmethod
    def merged(cls, columns: Sequence[Values], firsts: Sequence[int]) -> Self:
        return cls([part for column in columns for part in column.parts])


@dataclass(frozen=True)
class Texts(Column):
    """A text of each row: its bytes in UTF-8 (total,), and where each ends in them, int64 (rows,)."""

    data: Parts
    ends: Parts

    @classmethod
    def of(cls, texts: pa.Array | pa.ChunkedArray) -> Self:
        """The column of some texts without nulls."""
        whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        large = pa.concat_arrays([whole.cast(pa.large_string())])
        bounds = np.frombuffer(large.buffers()[1] or b"\0" * 8, np.int64)[large.offset :][: len(large) + 1]
        data = np.frombuffer(large.buffers()[2] or b"", np.uint8)[bounds[0] : bounds[-1]]
        return cls([data], [bounds[1:] - bounds[0]])

    def take(self, rows: np.ndarray) -> pa.Array:
        """The texts of some rows (n,), as large strings."""
        (data,), (ends,) = self.data, self.ends
        stop = ends[rows]
        start = np.where(rows > 0, ends[np.maximum(rows, 1) - 1], 0) if len(rows) else stop
        size = stop - start
        bounds = np.concatenate([[0], np.cumsum(size)])
        wanted = data[np.arange(bounds[-1]) + np.repeat(start - bounds[:-1], size)]
        return pa.LargeStringArray.from_buffers(len(rows), pa.py_buffer(bounds), pa.py_buffer(wanted))

    def arrays(self) -> Mapping[str, Parts]:
        return {"data": self.data, "ends": self.ends}

    @classmethod
    def stored(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        return cls([arrays["data"]], [arrays["ends"]])

    @classmethod
    def merged(cls, columns: Sequence[Texts], firsts: Sequence[int]) -> Self:
        sizes = np.cumsum([0, *(sum(len(part) for part in column.data) for column in columns)])
        ends = [part + before for column, before in zip(columns, sizes.tolist(), strict=False) for part in column.ends]
        return cls([part for column in columns for part in column.data], ends)


@dataclass(frozen=True)
class Keys(Column):
    """Rows by a key: keys, sorted, uint64 (n,), and rows of the run, int32 (n,), those of a key ascending."""

    key: np.ndarray
    row: np.ndarray

    @classmethod
    def of(cls, key: np.ndarray, row: np.ndarray | None = None) -> Self:
        """By the keys (n,) of rows ascending (n,), or of all."""
        order = np.argsort(key, kind="stable")
        rows = order if row is None else row[order]
        return cls(key[order].astype(np.uint64), rows.astype(np.int32))

    def ends(self, keys: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """The first and the last rows of each of some keys, sorted (n,): places in `keys`, and rows."""
        begin, end = np.searchsorted(self.key, keys, "left"), np.searchsorted(self.key, keys, "right")
        head = np.minimum(end - begin, first)
        tail = np.minimum(end - begin - head, last)
        place = np.repeat(np.arange(len(keys)), head), np.repeat(np.arange(len(keys)), tail)
        at = np.concatenate([_spans(begin, head), _spans(end - tail, tail)])
        return np.concatenate(place), self.row[at].astype(np.int64)

    def arrays(self) -> Mapping[str, Parts]:
        return {"key": [self.key], "row": [self.row]}

    @classmethod
    def stored(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        return cls(arrays["key"], arrays["row"])

    @classmethod
    def merged(cls, columns: Sequence[Keys], firsts: Sequence[int]) -> Self:
        keys = np.concatenate([column.key for column in columns])
        rows = [column.row + np.int32(first) for column, first in zip(columns, firsts, strict=True)]
        return cls.of(keys, np.concatenate(rows))


@dataclass(frozen=True)
class Near(Column):
    """64-bit hashes to be looked up with some bits flipped: a table of each of a few bands of their bits, as in
    `_hamming`, kept sorted as by Manku, Jain and Das Sarma, "Detecting near-duplicates for web crawling" (2007)."""

    distance: int
    """How far apart hashes will mostly be asked for; sets the bands."""
    bands: np.ndarray
    """Shift and bits of each: int64 (bands, 2)."""
    tables: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]
    """Of each band, in the order of its keys: places int32 (n,), hashes uint64 (n,); and where each key begins."""

    @classmethod
    def of(cls, hashes: np.ndarray, places: np.ndarray, distance: int) -> Self:
        """Of hashes (n,) and their places (n,)."""
        bits = max(4, min(MOST_KEY_BITS, len(hashes).bit_length()))  # where keys begin takes no more room than hashes
        table = HashTable(hashes, distance, most_bits=bits)
        bands = np.array([(band.shift, band.bits) for band in table.bands], np.int64).reshape(-1, 2)
        return cls(distance, bands, tuple((places[o].astype(np.int32), h, s) for o, h, s in table.sorted))

    def table(self, distance: int) -> HashTable:
        """To look up within a distance; gives places where a table of hashes alone gives positions."""
        bands = [Band(int(shift), int(bits), 0) for shift, bits in self.bands]
        return HashTable.stored(bands, self.tables, distance)

    def arrays(self) -> Mapping[str, Parts]:
        facts: dict[str, Parts] = {"distance": [np.array([self.distance])], "bands": [self.bands]}
        for number, (places, hashes, starts) in enumerate(self.tables):
            facts |= {f"places{number}": [places], f"hashes{number}": [hashes], f"starts{number}": [starts]}
        return facts

    @classmethod
    def stored(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        names = ("places", "hashes", "starts")
        tables = tuple(
            (arrays[f"{names[0]}{n}"], arrays[f"{names[1]}{n}"], arrays[f"{names[2]}{n}"])
            for n in range(len(arrays["bands"]))
        )
        return cls(int(arrays["distance"][0]), arrays["bands"], tables)

    @classmethod
    def merged(cls, columns: Sequence[Near], firsts: Sequence[int]) -> Self:
        hashes = np.concatenate([column.tables[0][1] for column in columns])
        moved = [c.tables[0][0] + np.int32(first * PLACES) for c, first in zip(columns, firsts, strict=True)]
        return cls.of(hashes, np.concatenate(moved), columns[0].distance)


@dataclass(frozen=True)
class Tally(Column):
    """Counts for some keys, which need not be rows of the run: keys, sorted, int64 (n,), and int64 (n, width), of which
    the first is a count and the others are maxima."""

    key: np.ndarray
    counted: np.ndarray

    @staticmethod
    def add(total: np.ndarray, more: np.ndarray) -> None:
        """Put counts (n, width) together with others, in place."""
        total[:, 0] += more[:, 0]
        np.maximum(total[:, 1:], more[:, 1:], out=total[:, 1:])

    def of_keys(self, keys: np.ndarray) -> np.ndarray:
        """What was counted for some keys (n,): int64 (n, width), 0 for unknown ones."""
        found = np.zeros((len(keys), self.counted.shape[1]), np.int64)
        if len(self.key):
            at = np.minimum(np.searchsorted(self.key, keys), len(self.key) - 1)
            known = self.key[at] == keys
            found[known] = self.counted[at[known]]
        return found

    def arrays(self) -> Mapping[str, Parts]:
        return {"key": [self.key], "counted": [self.counted]}

    @classmethod
    def stored(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        return cls(arrays["key"], arrays["counted"])

    @classmethod
    def merged(cls, columns: Sequence[Tally], firsts: Sequence[int]) -> Self:
        keys = np.unique(np.concatenate([column.key for column in columns]))
        total = np.zeros((len(keys), columns[0].counted.shape[1]), np.int64)
        for column in columns:
            cls.add(total, column.of_keys(keys))
        return cls(keys, total)


def _spans(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The numbers from each start on, so many of each: int64 (sum of counts,)."""
    before = np.cumsum(count) - count
    return np.arange(int(count.sum())) + np.repeat(start - before, count)
