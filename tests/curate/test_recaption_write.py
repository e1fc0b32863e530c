"""New captions put into a sample's tar members: only what must change does."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from curate.recaption.members import recaptioned
from curate.shards import samples_in
from curate.tar import tar_members

SAID = [{"caption": "a red car", "source": "coca", "score": 0.3, "weight": 1.0}]


def sample(members: dict[str, bytes], key: str = "000001", format: int = tarfile.GNU_FORMAT, **more: object) -> bytes:
    """The tar blocks of one sample, as they lie within a shard."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for suffix, data in members.items():
            info = tarfile.TarInfo(f"{key}.{suffix}")
            info.size, info.mtime, info.mode = len(data), 1234.5 if format == tarfile.PAX_FORMAT else 1234, 0o600
            info.pax_headers = dict(more)  # type: ignore[arg-type]
            tar.addfile(info, io.BytesIO(data))
        end = tar.offset
    return out.getvalue()[:end]


def read(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data + bytes(1024))) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


@pytest.mark.parametrize("key", ["000001", "a/b.c/000001", "long" * 60, "schönes/bild"])
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_the_text_and_the_details_change_and_nothing_else(key: str, format: int) -> None:
    if format == tarfile.USTAR_FORMAT and len(key) > 100:
        key = "folder" * 15 + "/000001"
    before = {"jpg": b"\xff\xd8image" * 300, "txt": b"an old car", "json": b'{"url": "u", "caption": "an old car"}',
              "cls": b"7"}  # fmt: skip
    after = read(recaptioned(sample(before, key, format), "uid1", "a red car", "an old car", SAID))
    assert list(after) == [f"{key}.{suffix}" for suffix in before]
    assert after[f"{key}.jpg"] == before["jpg"] and after[f"{key}.cls"] == b"7"
    assert after[f"{key}.txt"] == b"a red car"
    assert json.loads(after[f"{key}.json"]) == {
        "url": "u", "caption": "a red car", "uid": "uid1", "original_caption": "an old car", "captions": SAID,
    }  # fmt: skip


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("key", ["000001", "long" * 60])
def test_members_that_are_missing_are_added_behind_the_others(format: int, key: str) -> None:
    data = recaptioned(sample({"jpg": b"image"}, key, format), "uid1", "a red car", None, SAID)
    (found,) = samples_in(data, 0)
    assert (found.key, found.text, found.uid, bytes(found.image or b"")) == (key, "a red car", "uid1", b"image")
    assert [name.rpartition(".")[2] for name in read(data)] == ["jpg", "txt", "json"]


def test_a_new_member_is_like_its_neighbours() -> None:
    data = recaptioned(sample({"jpg": b"image"}), "uid1", "a red car", None, SAID)
    with tarfile.open(fileobj=io.BytesIO(data + bytes(1024))) as tar:
        assert {(m.mtime, m.mode) for m in tar} == {(1234, 0o600)}


def test_a_kept_caption_is_not_touched() -> None:
    before = {"jpg": b"image", "txt": b" an old\xff car\n"}
    after = read(recaptioned(sample(before), "uid1", None, " an old\ufffd car\n", SAID))
    assert after["000001.txt"] == before["txt"]
    assert json.loads(after["000001.json"])["original_caption"] == " an old\ufffd car\n"


def test_the_first_original_is_kept_when_a_sample_is_recaptioned_again() -> None:
    once = recaptioned(sample({"jpg": b"i", "txt": b"first"}), "uid1", "second", "first", SAID)
    twice = read(recaptioned(once, "uid1", "third", "second", SAID))
    assert twice["000001.txt"] == b"third" and json.loads(twice["000001.json"])["original_caption"] == "first"
    hostile = sample({"jpg": b"i", "txt": b"first", "json": b'{"original_caption": "a claim of the web", "uid": "x"}'})
    details = json.loads(read(recaptioned(hostile, "x", "second", "first", SAID))["000001.json"])
    assert details["original_caption"] == "first"


@pytest.mark.parametrize(("given", "kept"), [
    (b'{"id": 123456789012345678901234567890, "x": 0.1}', {"id": 123456789012345678901234567890, "x": 0.1}),
    (b'["a", "list"]', {"json": ["a", "list"]}),
    (b'{"a": "\xe6\xbc\xa2", "uid": 17}', {"a": "漢", "uid": 17}),
    (b"{}", {}),
])  # fmt: skip
def test_details_of_any_kind_are_kept(given: bytes, kept: dict) -> None:
    after = read(recaptioned(sample({"jpg": b"i", "txt": b"t", "json": given}), "uid1", "new", "t", SAID))
    new = {"uid": "uid1"} | kept | {"original_caption": "t", "captions": SAID}
    assert json.loads(after["000001.json"]) == new


def test_a_header_that_tells_another_size_is_not_believed() -> None:
    data = sample({"jpg": b"image", "txt": b"an old car"}, format=tarfile.PAX_FORMAT, comment="x")
    lying = data.replace(b"13 comment=x\n", b"13 size=0010\n", 2)
    if lying == data:
        pytest.fail("the pax record is written in another way")
    text = next(m for m in tar_members(io.BytesIO(lying), memoryview(lying)) if m.name.endswith(".txt"))
    assert text.size == 10
    after = recaptioned(lying, "uid1", "a much longer caption than before", "an old car", SAID)
    assert read(after)["000001.txt"] == b"a much longer caption than before"


def test_a_caption_is_data_wherever_it_lands() -> None:
    evil = '"}, {"uid": "other"} ../../etc/passwd \u202e <script>'
    after = read(recaptioned(sample({"jpg": b"i", "txt": b"t"}), "uid1", evil, "t", [{"caption": evil}]))
    assert list(after) == ["000001.jpg", "000001.txt", "000001.json"]
    details = json.loads(after["000001.json"])
    assert details["uid"] == "uid1" and details["captions"] == [{"caption": evil}]
