"""Reads samples from WebDataset shards: tar files whose members share a key, as `12.jpg` and `12.txt` do.

Foreign data is never unpickled or executed: an image is bytes until PIL decodes it, a caption text or JSON.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fsspec

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
MAX_MEMBER_BYTES = 64 << 20
HASH_CONTENT_BELOW = 1 << 30  # bytes: the fingerprint of a smaller data set reads it all


class BadSampleError(Exception):
    """A sample cannot be used; the message is a short reason, the same for every sample of its sort."""


@dataclass(frozen=True)
class Sample:
    """One key of a shard with the bytes of its members by extension (`jpg`, `txt`, `json`, `cls`, ...)."""

    key: str
    members: dict[str, bytes]

    @property
    def image(self) -> bytes:
        """The encoded image.

        Raises:
            BadSampleError: there is none.
        """
        for extension in IMAGE_EXTENSIONS:
            if extension in self.members:
                return self.members[extension]
        raise BadSampleError("no image")

    @property
    def caption(self) -> str:
        """The `txt` member, else "caption" of the `json` member; stripped, never empty.

        Raises:
            BadSampleError: there is none, or it is empty.
        """
        if "txt" in self.members:
            caption: Any = self.members["txt"].decode("utf-8", errors="replace")
        else:
            try:
                caption = json.loads(self.members.get("json", b"{}"))["caption"]
            except (ValueError, KeyError, TypeError, RecursionError):
                caption = None
        if not isinstance(caption, str) or not caption.strip():
            raise BadSampleError("no caption")
        return caption.strip()


def list_shards(folder: str) -> list[str]:
    """The URLs of the `.tar` files of a folder or fsspec URL (or of its sub-folders, if it has none), sorted.

    Raises:
        ValueError: the folder is missing or holds no shard.
    """
    fs, path = fsspec.url_to_fs(folder)
    path = path.rstrip("/")
    if path.endswith(".tar") and fs.isfile(path):
        return [fs.unstrip_protocol(path)]
    for pattern in ("*.tar", "*/*.tar"):
        found = sorted(fs.glob(f"{path}/{pattern}"))
        if found:
            return [fs.unstrip_protocol(shard) for shard in found]
    raise ValueError(f"shards: {folder} {'holds no .tar file' if fs.exists(path) else 'does not exist'}")


def fingerprint(shards: list[str]) -> str:
    """A digest of what the shards hold: their bytes up to 1 GiB in all, else their names, sizes and times."""
    digest = hashlib.sha256()
    opened = [fsspec.url_to_fs(shard) for shard in shards]
    facts = [fs.info(path) for fs, path in opened]
    small = sum(fact["size"] or 0 for fact in facts) < HASH_CONTENT_BELOW
    for (fs, path), fact in zip(opened, facts, strict=True):
        name = path.rsplit("/", 1)[-1]
        if small:
            with fs.open(path, "rb") as file:
                digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        else:
            changed = next((fact[k] for k in ("ETag", "etag", "mtime", "LastModified", "updated") if k in fact), "")
            digest.update(f"{name} {fact['size']} {changed}\n".encode())
    return digest.hexdigest()


def read_samples(shard: str, skipped: Counter[str]) -> Iterator[Sample]:
    """The samples of one shard in tar order. What cannot be read is counted in `skipped` and left out.

    Raises:
        OSError: the shard cannot be opened or fetched (a broken tar is counted, a broken network is not).
    """
    key, members = "", dict[str, bytes]()
    with fsspec.open(shard, "rb") as file:
        for name, content in _read_members(file, skipped):
            folder, _, base = name.rpartition("/")
            stem, _, extension = base.partition(".")
            member_key = f"{folder}/{stem}" if folder else stem
            if member_key != key:
                if members:
                    yield Sample(key, members)
                key, members = member_key, {}
            members[extension.lower()] = content
    if members:
        yield Sample(key, members)


def _read_members(file: Any, skipped: Counter[str]) -> Iterator[tuple[str, bytes]]:
    watched = _Watched(file)
    try:
        with tarfile.open(fileobj=watched, mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                if not member.isfile():
                    continue
                if member.size > MAX_MEMBER_BYTES:
                    skipped["member too large"] += 1
                    continue
                content = tar.extractfile(member)
                assert content is not None  # a regular file has content
                yield member.name, content.read()
        broken = not watched.last.endswith(bytes(tarfile.BLOCKSIZE))
    except (tarfile.TarError, EOFError, ValueError):
        broken = True
    if broken:
        skipped["broken shard"] += 1


class _Watched:
    """Remembers the last bytes read: tarfile takes a damaged header for the end, but a whole tar ends in zeros."""

    def __init__(self, file: Any):
        self.file, self.last = file, b""

    def read(self, size: int) -> bytes:
        chunk: bytes = self.file.read(size)
        self.last = chunk or self.last
        return chunk
