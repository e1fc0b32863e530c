"""Find the metadata of samples by their uids, in a folder of DataComp's metadata files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curate.errors import RequestError, WorkError
from curate.metadata.npz import NpzFile
from curate.metadata.shards import SCORES, SIZES, npz_name
from curate.storage import Folder
from filters._uids import parse_uids, sort_uids

MOST_ROWS = 1 << 22
"""Rows of metadata held at once by a process, about 60 bytes each."""
_COLUMNS = (*SIZES.values(), *SCORES.values())


@dataclass(frozen=True)
class _File:
    """One metadata file: its uids in order, the row of each, and the narrow columns in file order."""

    uids: np.ndarray
    rows: np.ndarray
    columns: dict[str, np.ndarray]
    count: int


class Lookup:
    """The metadata of a folder by uid.

    A pool as DataComp's downloader writes it has the order of the metadata, so the file that held the last
    samples most likely holds the next; the others are tried in turn from there.
    """

    def __init__(self, url: str) -> None:
        self.folder = Folder(url)
        self.names = metadata_files(self.folder)
        if not self.names:
            raise RequestError(f"features.datacomp.metadata: {url} holds no .parquet file")
        self._held: OrderedDict[int, _File] = OrderedDict()
        self._npz: tuple[int, NpzFile] | None = None
        self._last = 0

    def numbers(self, uids: Sequence[str | None], columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Columns of the metadata as float64 (n,), NaN where a uid is not listed."""
        out = {name: np.full(len(uids), np.nan) for name in columns}
        for number, places, rows in self._places(uids):
            held = self._file(number).columns
            for name in columns:
                out[name][places] = held[name][rows]
        return out

    def vectors(self, uids: Sequence[str | None], array: str, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of an array of the `.npz` files: float16 (n, size), and which uids are listed (n,)."""
        out, real = np.zeros((len(uids), size), np.float16), np.zeros(len(uids), bool)
        for number, places, rows in self._places(uids):
            if self._npz is None or self._npz[0] != number:
                if self._npz is not None:
                    self._npz[1].close()
                self._npz = number, NpzFile(self.folder, npz_name(self.names[number]), self._file(number).count)
            for place, row in zip(places.tolist(), rows.tolist(), strict=True):
                out[place] = self._npz[1].rows(array, row, row + 1)[0]
            real[places] = True
        return out, real

    def _places(self, uids: Sequence[str | None]) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """For each file that lists some of the uids: its number, their places among the uids, their rows."""
        wanted, valid = parse_uids(pa.array(uids, pa.string()))
        left, found = np.flatnonzero(valid), []
        for step in range(len(self.names)):
            if not len(left):
                break
            number = (self._last + step) % len(self.names)
            file = self._file(number)
            at = np.minimum(np.searchsorted(file.uids["f0"], wanted["f0"][left]), max(len(file.uids) - 1, 0))
            hit = file.uids[at] == wanted[left] if len(file.uids) else np.zeros(len(left), bool)
            if hit.any():
                found.append((number, left[hit], file.rows[at[hit]]))
                left = left[~hit]
        if found:
            self._last = found[-1][0]
        return found

    def _file(self, number: int) -> _File:
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        file = self._read(self.names[number])
        self._held[number] = file
        while len(self._held) > 1 and sum(len(held.rows) for held in self._held.values()) > MOST_ROWS:
            self._held.popitem(last=False)
        return file

    def _read(self, name: str) -> _File:
        try:
            with self.folder.local_copy(name) as path:
                present = set(pq.read_schema(path).names)
                table = pq.read_table(path, columns=[c for c in ("uid", *_COLUMNS) if c in present], partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise WorkError(f"{self.folder.path(name)} cannot be read: {' '.join(str(error).split())}") from error
        uids, valid = parse_uids(table["uid"])
        order = np.lexsort((uids["f1"], uids["f0"]))
        order = order[valid[order]]
        nothing = np.full(len(table), np.nan)
        columns = {c: _floats(table[c]) if c in present else nothing for c in _COLUMNS}
        return _File(sort_uids(uids[valid]), order, columns, len(table))


def metadata_files(folder: Folder) -> list[str]:
    """The metadata files of a folder, in name order."""
    found = folder.fs.find(folder.root) if folder.exists() else []
    names = [path[len(folder.root) + 1 :] for path in found]
    return sorted(n for n in names if n.endswith(".parquet") and not any(p[0] in "._" for p in n.split("/")))


def listing_digest(url: str) -> str:
    """A digest of the names, sizes and dates of the files in a folder of metadata: it is too large to read."""
    folder = Folder(url)
    if not metadata_files(folder):
        raise RequestError(f"features.datacomp.metadata: {url} holds no .parquet file")
    facts = folder.fs.find(folder.root, detail=True)
    lines = [f"{path[len(folder.root) :]} {i['size']} {i.get('mtime') or i.get('ETag')}" for path, i in facts.items()]
    open_lookup.cache_clear()  # asked for at the start of a run: from here on the folder is taken as it is now
    return xxhash.xxh3_128_hexdigest("\n".join(sorted(lines)).encode())


@lru_cache(maxsize=1)
def open_lookup(url: str) -> Lookup:
    """The lookup of a folder, once per process and run."""
    return Lookup(url)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
