"""Read a WebDataset tar shard sample by sample, without losing one and without copying its bytes."""

from __future__ import annotations

import io
import mmap
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import orjson

from curate.tar import tar_members

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "avif")
MAX_TEXT_BYTES = 1 << 20
NO_CAPTION = "no caption"
"""How the error of a sample begins that lacks nothing else."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image-text pair as it lies in its shard.

    `offset, length` span the tar blocks of all its members, headers included, so copying that range copies
    the sample. `image` is a view into the shard. `error` says why the pair cannot be used, else it is None.
    """

    key: str
    offset: int
    length: int
    image: memoryview | None = None
    image_offset: int = 0
    text: str | None = None
    uid: str | None = None
    error: str | None = None


@dataclass(slots=True)
class _Members:
    """The members read so far of the sample under way."""

    key: str
    offset: int
    end: int
    files: dict[str, tuple[int, int]] = field(default_factory=dict)  # suffix -> data offset, size


def read_samples(path: str) -> Iterator[Sample]:
    """Yield the samples of a local tar in order: consecutive members that share a key, as WebDataset has it
    (a second member of the same name begins another sample).

    Damage never ends the run: a truncated or damaged tar yields what can be read and then one sample whose
    `error` says at which byte the rest was lost; a file that is no tar at all yields only that one.
    """
    size = Path(path).stat().st_size
    if size == 0:
        yield Sample(key="", offset=0, length=0, error="unreadable shard: the file is empty")
        return
    with Path(path).open("rb") as file:
        # Not closed here: images are views into it, and it goes when the last of them does.
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    with Path(path).open("rb") as file:
        for members, damage in _group(file, view):
            yield _sample(members, damage, view)


def samples_in(data: bytes, offset: int) -> list[Sample]:
    """The samples in a part of a tar that was cut out at `offset`, between samples; see `read_samples`."""
    view = memoryview(data)
    found = [_sample(members, damage, view) for members, damage in _group(io.BytesIO(data), view)]
    return [replace(s, offset=s.offset + offset, image_offset=s.image_offset + offset) for s in found]


def _group(file: IO[bytes], view: memoryview) -> Iterator[tuple[_Members, str | None]]:
    """Gather consecutive members of one key; the last group may come with the damage that ended the tar."""
    size = len(view)
    current: _Members | None = None
    try:
        for member in tar_members(file, view):
            if member.is_file:
                key, suffix = split_key(member.name)
                if current is None or key != current.key or suffix in current.files:
                    if current is not None:
                        yield current, None
                    current = _Members(key, member.offset, member.end)
                current.files[suffix] = (member.data, member.size)
                current.end = member.end
            if member.end > size:
                raise tarfile.ReadError(f"it ends inside {member.name}")
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        where = current.end if current else 0
        broken = current if current and current.end > size else None
        if current and not broken:
            yield current, None
        lost = broken or _Members("", min(where, size), size)
        lost.end = min(lost.end, size)
        yield lost, f"unreadable shard from byte {lost.offset} on: {error}"
        return
    if current is not None:
        yield current, None


def split_key(name: str) -> tuple[str, str]:
    """Split a member's name into WebDataset's key and lower-case suffix, at the first dot of its last part.

    >>> split_key("images/000012.seg.PNG")
    ('images/000012', 'seg.png')
    """
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _sample(members: _Members, damage: str | None, view: memoryview) -> Sample:
    bare = Sample(members.key, members.offset, members.end - members.offset, error=damage)
    if damage:
        return bare
    image = _member(members, IMAGE_SUFFIXES)
    try:
        details = _details(members, view)
        text = _text(members, view, details)
    except ValueError as error:
        return replace(bare, error=str(error))
    uid = details.get("uid")
    found = replace(bare, text=text, uid=str(uid) if uid else None)
    if image is None:
        return replace(found, error=f"no image among its members ({', '.join(members.files) or 'none'})")
    start, size = image
    found = replace(found, image=view[start : start + size], image_offset=start)
    if size == 0:
        return replace(found, error="the image is empty")
    return found if text is not None else replace(found, error=f"{NO_CAPTION}: no .txt member, no caption in .json")


def _member(members: _Members, suffixes: tuple[str, ...]) -> tuple[int, int] | None:
    """The member with one of the suffixes: exactly that, or else after a dot that was part of the name."""
    for suffix in suffixes:
        if suffix in members.files:
            return members.files[suffix]
    for name, place in members.files.items():
        if name.rpartition(".")[2] in suffixes:
            return place
    return None


def _details(members: _Members, view: memoryview) -> dict[str, Any]:
    """The sample's `.json` member; {} where there is none."""
    if (found := _member(members, ("json",))) is None:
        return {}
    start, size = found
    try:
        details = orjson.loads(view[start : start + size])
    except orjson.JSONDecodeError as error:
        raise ValueError(f"its .json is not JSON: {error}") from error
    return details if isinstance(details, dict) else {}


def _text(members: _Members, view: memoryview, details: dict[str, Any]) -> str | None:
    """The caption: the `.txt` member, else `caption` or `text` of the `.json`."""
    if (found := _member(members, ("txt",))) is not None:
        start, size = found
        if size > MAX_TEXT_BYTES:
            raise ValueError(f"caption of {size} bytes, over the limit of {MAX_TEXT_BYTES}")
        return str(view[start : start + size], "utf-8", errors="replace")
    text = details.get("caption", details.get("text"))
    return text if isinstance(text, str) else None
