"""A pool: a folder of WebDataset shards, here or on a store, and where its features are kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from curate.errors import RequestError
from curate.metadata.shards import is_metadata, looks_like_metadata, npz_name
from curate.storage import Folder

FEATURES = "_features"


@dataclass(frozen=True)
class Shard:
    """One tar of a pool, or one file of metadata. `stamp` changes when the file does, and costs no reading."""

    name: str
    size: int
    stamp: str


@dataclass(frozen=True)
class Pool:
    """The shards of a folder or fsspec URL, in name order, and the folder that caches their features."""

    folder: Folder
    cache: Folder
    shards: tuple[Shard, ...]
    recaption: dict[str, Any] | None = None
    """Of a pool that a recipe's `recaption` wrote: what it was made from, and what became of the captions."""

    @property
    def metadata_only(self) -> bool:
        """Whether there are no images: its shards are DataComp's metadata files."""
        return bool(self.shards) and is_metadata(self.shards[0].name)

    @cached_property
    def shard_numbers(self) -> dict[str, int]:
        return {shard.name: number for number, shard in enumerate(self.shards)}


def open_pool(url: str, cache: str | None = None) -> Pool:
    """List the shards of a pool: its tars, or where there are none, its files of DataComp's metadata.

    Raises:
        RequestError: the folder is missing, or holds neither.
    """
    folder = Folder(url)
    if not folder.exists():
        raise RequestError(f"POOL: {url} does not exist")
    found = folder.fs.find(folder.root, detail=True)
    if not found or folder.root in found:
        raise RequestError(f"POOL: {url} is {'a file' if found else 'empty'}; give a folder of WebDataset shards")
    files = {path[len(folder.root) + 1 :]: info for path, info in found.items()}
    files = {n: info for n, info in files.items() if not any(p.startswith((".", "_")) for p in n.split("/"))}
    for name, info in files.items():
        if info["size"] is None:  # a web server's listing names files only
            info.update(folder.fs.info(folder.path(name)))
    shards = [Shard(n, int(info["size"]), _stamp(info)) for n, info in files.items() if n.endswith(".tar")]
    shards = shards or _metadata(folder, files)
    if not shards:
        raise RequestError(f"POOL: {url} holds no .tar shard; `curate download` makes one from pairs.parquet")
    return Pool(folder, Folder(cache) if cache else folder / FEATURES, tuple(sorted(shards, key=lambda s: s.name)))


def _metadata(folder: Folder, files: dict[str, dict]) -> list[Shard]:
    """The metadata files of a folder without tars; none if the first Parquet file is something else."""
    names = sorted(name for name in files if is_metadata(name))
    try:
        if not names or not looks_like_metadata(folder, names[0]):
            return []
    except (OSError, pa.ArrowException):
        return []
    shards = []
    for name in names:
        beside = files.get(npz_name(name))
        stamp = _stamp(files[name]) + (f"+{_stamp(beside)}" if beside else "")
        shards.append(Shard(name, int(files[name]["size"]), stamp))
    return shards


def _stamp(info: dict) -> str:
    """Whatever the store says of a file's version: its ETag, or else when it was last written."""
    for field in ("ETag", "etag", "md5", "mtime", "LastModified", "last_modified"):
        if info.get(field) is not None:
            return f"{info['size']}-{info[field]}"
    return f"{info['size']}"
