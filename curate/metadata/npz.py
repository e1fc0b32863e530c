"""Rows of the arrays in a `.npz` file, read as they are asked for; nothing is unpickled."""

from __future__ import annotations

import zipfile
import zlib
from typing import IO

import numpy as np

from curate.errors import WorkError
from curate.storage import Folder

FLOATS = (np.dtype("<f2"), np.dtype("<f4"))


class NpzFile:
    """A `.npz` file of a folder, opened at the first use. Arrays are two-dimensional and have `rows` rows.

    Raises:
        WorkError: from `rows`, where the file is missing or damaged, or an array is not as expected.
    """

    def __init__(self, folder: Folder, name: str, rows: int) -> None:
        self.name, self.count = name, rows
        self._folder = folder
        self._zip: zipfile.ZipFile | None = None
        self._members: dict[str, tuple[IO[bytes], int, int, np.dtype]] = {}

    def rows(self, array: str, start: int, stop: int) -> np.ndarray:
        """The rows from `start` up to `stop` as float16 (stop - start, size)."""
        member, begins, size, kind = self._open(array)
        try:
            member.seek(begins + start * size * kind.itemsize)
            data = member.read((stop - start) * size * kind.itemsize)
            return np.frombuffer(data, kind).reshape(stop - start, size).astype(np.float16)
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise WorkError(f"{self.name}: {array} is damaged: {error}") from error

    def close(self) -> None:
        for member, *_ in self._members.values():
            member.close()
        if self._zip is not None:
            self._zip.close()

    def _open(self, array: str) -> tuple[IO[bytes], int, int, np.dtype]:
        if array not in self._members:
            try:
                self._zip = self._zip or zipfile.ZipFile(self._folder.fs.open(self._folder.path(self.name), "rb"))
                member = self._zip.open(f"{array}.npy")
                header = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if header == (1, 0) else np.lib.format.read_array_header_2_0
                shape, by_column, kind = read(member)
            except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
                raise WorkError(f"{self.name}: {array} cannot be read: {error}") from error
            if len(shape) != 2 or by_column or kind not in FLOATS:
                raise WorkError(f"{self.name}: {array} is not a table of half or single floats: {kind} {shape}")
            if shape[0] != self.count:
                raise WorkError(f"{self.name}: {array} has {shape[0]} rows, its parquet {self.count}")
            self._members[array] = member, member.tell(), shape[1], kind
        return self._members[array]


def npz_digest(folder: Folder, name: str) -> str:
    """Names, sizes and CRCs of the arrays in a `.npz`: what its last bytes say of the rest; empty without a file."""
    if not folder.exists(name):
        return ""
    try:
        with folder.fs.open(folder.path(name), "rb") as file, zipfile.ZipFile(file) as archive:
            return " ".join(f"{i.filename}:{i.file_size}:{i.CRC:08x}" for i in archive.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise WorkError(f"{name} cannot be read: {error}") from error
