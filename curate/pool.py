"""A pool: a folder of WebDataset shards, here or on a store, and where its features are kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from curate.errors import RequestError
from curate.storage import Folder

FEATURES = "_features"


@dataclass(frozen=True)
class Shard:
    """One tar of a pool. `stamp` changes when the file does, and costs no reading."""

    name: str
    size: int
    stamp: str


@dataclass(frozen=True)
class Pool:
    """The shards of a folder or fsspec URL, in name order, and the folder that caches their features."""

    folder: Folder
    cache: Folder
    shards: tuple[Shard, ...]

    @cached_property
    def shard_numbers(self) -> dict[str, int]:
        return {shard.name: number for number, shard in enumerate(self.shards)}


def open_pool(url: str, cache: str | None = None) -> Pool:
    """List the shards of a pool.

    Raises:
        RequestError: the folder is missing, or holds no `.tar` file.
    """
    folder = Folder(url)
    if not folder.exists():
        raise RequestError(f"POOL: {url} does not exist")
    found = folder.fs.find(folder.root, detail=True)
    if not found or folder.root in found:
        raise RequestError(f"POOL: {url} is {'a file' if found else 'empty'}; give a folder of WebDataset shards")
    shards = []
    for path, info in found.items():
        name = path[len(folder.root) + 1 :]
        hidden = any(part.startswith((".", "_")) for part in name.split("/"))
        if name.endswith(".tar") and not hidden:
            shards.append(Shard(name, int(info["size"]), _stamp(info)))
    if not shards:
        raise RequestError(f"POOL: {url} holds no .tar shard; `curate download` makes one from pairs.parquet")
    return Pool(folder, Folder(cache) if cache else folder / FEATURES, tuple(sorted(shards, key=lambda s: s.name)))


def _stamp(info: dict) -> str:
    """Whatever the store says of a file's version: its ETag, or else when it was last written."""
    for field in ("ETag", "etag", "md5", "mtime", "LastModified", "last_modified"):
        if info.get(field) is not None:
            return f"{info['size']}-{info[field]}"
    return f"{info['size']}"
