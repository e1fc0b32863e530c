"""Reading a tar's plain headers gives what `tarfile` gives, and hands over to it where a header is not plain."""

from __future__ import annotations

import io
import random
import tarfile
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.tar import tar_members

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def tar_bytes(kind: str, times: float = 1_700_000_000, names: tuple[str, ...] = ("a.jpg", "a.txt", "b.jpg")) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=FORMATS[kind]) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = 300 * number, times, "big user"
            tar.addfile(info, io.BytesIO(bytes([number + 1]) * info.size))
    return out.getvalue()


def odd() -> bytes:
    """A folder, a link and a long name between files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in (("a.jpg", b"0"), ("folder", b"5"), ("a.txt", b"0"), ("link", b"2"), ("é" * 90, b"0")):
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
    return out.getvalue()


TARS = {kind: tar_bytes(kind) for kind in FORMATS} | {
    "times with fractions": tar_bytes("pax", 1_700_000_000.25),
    "long names": tar_bytes("gnu", names=("a.jpg", "x" * 150 + ".jpg", "c.jpg")),
    "a prefix": tar_bytes("ustar", names=("folder/" * 20 + "a.jpg", "b.jpg")),
    "odd members": odd(),
    "no end": tar_bytes("gnu")[:3072],
    "empty": bytes(10240),
    "nothing": b"",
}


def read(data: bytes) -> tuple[list[Any], str | None]:
    found = []
    try:
        for member in tar_members(io.BytesIO(data), memoryview(data)):
            found.append(member)
            if member.end > len(data):  # where `read_samples` stops
                break
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        return found, str(error)
    return found, None


def read_by_tarfile(data: bytes) -> tuple[list[Any], str | None]:
    with patch("curate.tar._plain", lambda *_: None):
        return read(data)


@pytest.mark.parametrize("kind", TARS)
def test_members_are_those_of_tarfile(kind: str) -> None:
    assert read(TARS[kind]) == read_by_tarfile(TARS[kind])


@pytest.mark.parametrize("kind", ["ustar", "gnu", "pax", "times with fractions"])
def test_plain_members_are_read_without_tarfile(kind: str) -> None:
    with patch("tarfile.open", side_effect=StopAsyncIteration), pytest.raises(StopAsyncIteration):
        members = tar_members(io.BytesIO(TARS[kind]), memoryview(TARS[kind]))
        assert [next(members).name for _ in range(3)] == ["a.jpg", "a.txt", "b.jpg"]
        next(members)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(TARS)), st.randoms(use_true_random=False))
def test_a_damaged_tar_gives_the_same_members_before_the_damage(kind: str, chance: random.Random) -> None:
    data = bytearray(TARS[kind])
    for _ in range(chance.choice([1, 1, 3])):
        place = chance.randrange(len(data) + 1) if chance.random() < 0.5 else chance.randrange(600)
        if chance.random() < 0.2:
            del data[place:]
        else:
            data[place : place + 1] = chance.choice([chance.randbytes(1), b"\0", b" ", b"7"])
    if len(data) >= 512 and chance.random() < 0.5:
        data[148:156] = b"%06o\0 " % (sum(data[:148]) + sum(data[156:512]) + 256)  # so that only the damage is wrong
    assert read(bytes(data)) == read_by_tarfile(bytes(data))
