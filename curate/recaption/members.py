"""A sample's tar members with another caption in them, all others as they were."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from curate.blur import resized
from curate.shards import split_key
from curate.tar import BLOCK, Member, padded, tar_members

CAPTIONS, ORIGINAL_CAPTION, UID = "captions", "original_caption", "uid"


def recaptioned(data: bytes, uid: str, text: str | None, original: str | None, captions: Sequence[dict]) -> bytes:
    """A sample's tar blocks with new captions.

    The .txt becomes `text`, unless that is None; the .json keeps what it had, with `uid`, `original_caption` and
    `captions` put in, and its own `caption` made the new one where it had one. A sample that has been recaptioned
    before keeps its first `original_caption`. A member that is missing is added behind the others.
    """
    view = memoryview(data)
    members = list(tar_members(io.BytesIO(data), view))
    names = [split_key(member.name)[1] if member.is_file else "" for member in members]
    json_at, text_at = _place(names, "json"), _place(names, "txt")
    before = _details(bytes(view[members[json_at].data :][: members[json_at].size])) if json_at is not None else {}
    details = _dumped(_merged(before, uid, text, original, captions))
    new = {json_at: details} | ({text_at: text.encode()} if text is not None else {})
    out = [_replaced(view, m, new[at]) if at in new else bytes(view[m.offset : m.end]) for at, m in enumerate(members)]
    if text is not None and text_at is None:
        out.append(_added(view, members, "txt", text.encode()))
    if json_at is None:
        out.append(_added(view, members, "json", details))
    return b"".join(_with_gaps(view, members, out))


def _with_gaps(view: memoryview, members: Sequence[Member], out: Sequence[bytes]) -> Iterator[bytes]:
    """The members, and whatever lies between them, as it is."""
    at = 0
    for member, data in zip(members, out, strict=False):
        yield bytes(view[at : member.offset])
        yield data
        at = member.end
    yield bytes(view[at:])
    yield from out[len(members) :]


def _place(suffixes: Sequence[str], wanted: str) -> int | None:
    """The member that readers take for the caption or the details, as `curate.shards` does."""
    if wanted in suffixes:
        return suffixes.index(wanted)
    return next((at for at, suffix in enumerate(suffixes) if suffix.rpartition(".")[2] == wanted), None)


def _details(data: bytes) -> dict[str, Any]:
    """The details as a mapping. The standard parser keeps large whole numbers, but for absurd ones."""
    try:
        found = json.loads(data)
    except ValueError:
        found = orjson.loads(data)
    return found if isinstance(found, dict) else {"json": found}


def _dumped(details: dict[str, Any]) -> bytes:
    try:
        return json.dumps(details, allow_nan=False).encode()
    except ValueError:  # a number too large for a float, which JSON has no word for
        return orjson.dumps(details)


def _merged(
    before: dict[str, Any], uid: str, text: str | None, original: str | None, captions: Sequence[dict]
) -> dict[str, Any]:
    known = isinstance(before.get(CAPTIONS), list) and isinstance(before.get(ORIGINAL_CAPTION), str)
    after = dict(before)
    if not after.get(UID):
        after[UID] = uid  # else it would be told by the caption, and be another sample now
    for name in ("caption", "text"):
        if text is not None and isinstance(after.get(name), str) and after[name] == original:
            after[name] = text
    after[ORIGINAL_CAPTION] = before[ORIGINAL_CAPTION] if known else original
    after[CAPTIONS] = list(captions)
    return after


def _replaced(view: memoryview, member: Member, data: bytes) -> bytes:
    """A member with other data: its headers stay, but for the size."""
    before, header = bytes(view[member.offset : member.data - BLOCK]), bytes(view[member.data - BLOCK : member.data])
    if header[156:157] not in (b"0", b"\0") or b" size=" in before:
        return _made(member.name, data)
    return before + resized(header, len(data)) + _blocks(data)


def _added(view: memoryview, members: Sequence[Member], suffix: str, data: bytes) -> bytes:
    """A new member, like the first one of the sample but for its name."""
    first = next(member for member in members if member.is_file)
    header = bytes(view[first.data - BLOCK : first.data])
    name = header[:100].partition(b"\0")[0]
    folder, slash, file = name.rpartition(b"/")
    new = folder + slash + file.partition(b".")[0] + b"." + suffix.encode()
    if first.data - BLOCK > first.offset or header[345:346] != b"\0" or len(new) > 100:
        return _made(f"{split_key(first.name)[0]}.{suffix}", data)
    return resized(new.ljust(100, b"\0") + header[100:], len(data)) + _blocks(data)


def _made(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape") + _blocks(data)


def _blocks(data: bytes) -> bytes:
    return data + bytes(padded(len(data)) - len(data))
