"""Reading a tar: every sample comes out, in order, whatever the tar looks like."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.shards import read_samples, split_key
from tests.conftest import Pair, encoded, pair, photo, write_shard


def test_samples_come_in_tar_order_with_their_bytes(tmp_path: Path) -> None:
    pairs = [pair(n) for n in range(3)]
    samples = list(read_samples(str(write_shard(tmp_path / "0.tar", pairs))))
    assert [s.key for s in samples] == ["000000", "000001", "000002"]
    assert [bytes(s.image or b"") for s in samples] == [p.image for p in pairs]
    assert [s.text for s in samples] == [p.caption for p in pairs]
    assert all(s.error is None for s in samples)


def test_a_range_holds_all_members_of_its_sample(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "0.tar", [pair(n, details={"uid": f"u{n}"}) for n in range(3)])
    data = path.read_bytes()
    for number, sample in enumerate(read_samples(str(path))):
        part = io.BytesIO(data[sample.offset : sample.offset + sample.length] + bytes(1024))
        with tarfile.open(fileobj=part) as tar:
            assert [m.name for m in tar] == [f"{number:06d}.{suffix}" for suffix in ("jpg", "txt", "json")]
        assert sample.uid == f"u{number}"


def test_long_names_and_pax_headers_belong_to_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    long = "folder/" + "é" * 150
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for suffix, content in (("jpg", encoded(photo(1))), ("txt", b"a caption")):
            info = tarfile.TarInfo(f"{long}.{suffix}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    (sample,) = read_samples(str(path))
    assert (sample.key, sample.offset, sample.error) == (long, 0, None)
    assert sample.length == path.read_bytes().rstrip(b"\0").__len__() // 512 * 512 + 512


def test_the_caption_may_be_in_the_json(tmp_path: Path) -> None:
    item = Pair("a", encoded(photo(1)), None, details={"caption": "from json", "uid": "abc"})
    (sample,) = read_samples(str(write_shard(tmp_path / "0.tar", [item])))
    assert (sample.text, sample.uid) == ("from json", "abc")


def test_dots_in_a_name_do_not_hide_the_image(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in (("cat.0001.jpg", encoded(photo(1))), ("cat.0001.txt", b"a cat")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    (sample,) = read_samples(str(path))
    assert (sample.key, sample.text, sample.error) == ("cat", "a cat", None)


@pytest.mark.parametrize(
    ("item", "error"),
    [
        (Pair("a", None, "words"), "no image among its members (txt)"),
        (Pair("a", b"", "words"), "the image is empty"),
        (Pair("a", b"x", None), "no caption: no .txt member, no caption in .json"),
    ],
)
def test_an_incomplete_pair_says_what_it_lacks(tmp_path: Path, item: Pair, error: str) -> None:
    (sample,) = read_samples(str(write_shard(tmp_path / "0.tar", [item])))
    assert sample.error == error


def test_a_truncated_tar_gives_what_it_has_and_one_error(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "0.tar", [pair(n) for n in range(4)])
    whole = [s.offset for s in read_samples(str(path))]
    path.write_bytes(path.read_bytes()[: whole[2] + 700])
    samples = list(read_samples(str(path)))
    assert [s.error is None for s in samples] == [True, True, False]
    assert (samples[-1].error or "").startswith(f"unreadable shard from byte {whole[2]} on:")


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "0.tar", [pair(n) for n in range(4)])
    third = list(read_samples(str(path)))[2].offset
    data = bytearray(path.read_bytes())
    data[third : third + 512] = b"\x07" * 512
    path.write_bytes(data)
    samples = list(read_samples(str(path)))
    assert [s.key for s in samples[:2]] == ["000000", "000001"]
    assert samples[2].error == f"unreadable shard from byte {third} on: no tar header there"


@pytest.mark.parametrize("content", [b"", b"not a tar at all", b"\x1f\x8b" + bytes(2000)])
def test_a_file_that_is_no_tar_is_one_unreadable_sample(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "0.tar"
    path.write_bytes(content)
    (sample,) = read_samples(str(path))
    assert (sample.error or "").startswith("unreadable shard")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=4000))
def test_no_bytes_make_it_raise(content: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        file.write(content)
        file.flush()
        assert list(read_samples(file.name)) or content.strip(b"\0") == b""


@given(
    st.text(st.characters(exclude_characters="/\0.", exclude_categories=["Cs"]), min_size=1),
    st.sampled_from(["jpg", "seg.png"]),
)
def test_split_key_undoes_joining(stem: str, suffix: str) -> None:
    assert split_key(f"folder.d/{stem}.{suffix}") == (f"folder.d/{stem}", suffix)
