"""Files here or on any fsspec store, written so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from curate.errors import RequestError
from curate.parquet import options


@lru_cache(maxsize=64)
def _resolved(url: str, here: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL and the path in it, once per process."""
    try:
        # Other processes write there too: what was listed once is soon not what there is.
        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as wrong:
        raise RequestError(f"{url}: {wrong}") from wrong
    return fs, str(path).rstrip("/")


os.register_at_fork(after_in_child=_resolved.cache_clear)  # processes must not share connections


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True)
class Folder:
    """A folder on a local disk or a store such as `s3://`; paths given to it are relative to it."""

    url: str

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        return self._found[0]

    @property
    def root(self) -> str:
        return self._found[1]

    @property
    def _found(self) -> tuple[fsspec.AbstractFileSystem, str]:
        here = "" if self.url.startswith("/") or "://" in self.url else os.getcwd()  # noqa: PTH109 faster than Path's
        return _resolved(self.url, here)

    @property
    def is_local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def path(self, name: str = "") -> str:
        return f"{self.root}/{name}" if name else self.root

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.url.rstrip('/')}/{name}")

    def exists(self, name: str = "") -> bool:
        return bool(self.fs.exists(self.path(name)))

    def read_bytes(self, name: str) -> bytes:
        return self.fs.cat_file(self.path(name))

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[str]:
        """Yield a local path to write; the file appears under `name`, whole, when the block ends well."""
        if not self.is_local:
            with tempfile.TemporaryDirectory() as scratch:
                part = str(Path(scratch) / "part")
                yield part
                self._upload(part, name)
            return
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        part = str(target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part"))
        try:
            yield part
            Path(part).replace(target)
        finally:
            Path(part).unlink(missing_ok=True)

    def put(self, name: str, local: str) -> None:
        """Move a local file here; it appears under `name` whole. On a local disk it must lie on the same one."""
        if self.is_local:
            Path(local).replace(self.path(name))
        else:
            self._upload(local, name)
            Path(local).unlink()

    def _upload(self, local: str, name: str) -> None:
        """Put a file into the store. Raises RequestError if the bucket is not there, or the store is read-only."""
        if "http" in self.fs.protocol:  # fsspec would POST it
            raise RequestError(f"{self.url}: nothing can be written to a web server; name another place")
        try:
            self.fs.put_file(local, self.path(name))
        except FileNotFoundError as wrong:
            raise RequestError(f"{self.url}: {wrong}") from wrong

    def write_bytes(self, name: str, data: bytes) -> None:
        with self.writing(name) as part:
            Path(part).write_bytes(data)

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, _json(value))

    def create_json(self, name: str, value: Any) -> None:
        """Write a JSON file that must not exist yet: of two at the same instant, one succeeds.

        On a store this needs one that can write so: S3 itself, Google's, MinIO do (`If-None-Match`).

        Raises:
            FileExistsError: there is one, of other content.
        """
        waiting = f"{name}.{uuid.uuid4().hex[:8]}.part"
        try:
            if not self.is_local:
                self.fs.pipe_file(self.path(name), _json(value), mode="create")
                return
            self.write_json(waiting, value)
            os.link(self.path(waiting), self.path(name))
        except FileExistsError:
            if self.read_bytes(name) != _json(value):  # else it is ours, and the answer was lost
                raise
        finally:
            if self.is_local:
                Path(self.path(waiting)).unlink(missing_ok=True)

    def write_parquet(self, name: str, table: pa.Table, row_group_size: int | None = None) -> None:
        with self.writing(name) as part:
            pq.write_table(table, part, row_group_size=row_group_size, **options(table))

    @contextlib.contextmanager
    def parquet(self, name: str) -> Iterator[pq.ParquetFile]:
        """Open a Parquet file; of a remote one only the footer and the columns that are read come here."""
        fs, root = self._found
        if isinstance(fs, LocalFileSystem):
            # Opened here: given a path, pyarrow looks the file up twice before it opens it.
            with pa.OSFile(f"{root}/{name}") as raw, pq.ParquetFile(raw) as file:
                yield file
            return
        with (
            fs.open(f"{root}/{name}", "rb", cache_type="none") as raw,
            pq.ParquetFile(raw, pre_buffer=True) as file,
        ):
            yield file

    @contextlib.contextmanager
    def local_copy(self, name: str) -> Iterator[str]:
        """Yield a local path that holds the file: the file itself here, a temporary copy of a remote one."""
        if self.is_local:
            yield self.path(name)
            return
        with tempfile.TemporaryDirectory() as scratch:
            copy = str(Path(scratch) / "copy")
            self.fs.get_file(self.path(name), copy)
            yield copy
