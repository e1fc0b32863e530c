import json
from collections import Counter
from pathlib import Path

import pytest
from trainer_samples import write_tar

from trainer.shards import BadSampleError, Sample, fingerprint, list_shards, read_samples


def test_shards_are_listed_in_order_from_a_folder_its_subfolders_a_url_or_a_single_file(tmp_path: Path) -> None:
    for name in ("b/00001.tar", "b/00000.tar", "b/notes.txt"):
        write_tar(tmp_path / name, [])
    found = list_shards(str(tmp_path / "b"))
    assert [Path(shard).name for shard in found] == ["00000.tar", "00001.tar"]
    assert list_shards(str(tmp_path)) == found
    assert list_shards(f"file://{tmp_path}/b/") == found
    assert list_shards(str(tmp_path / "b/00001.tar")) == found[1:]


def test_shards_in_another_file_system(tmp_path: Path) -> None:
    import fsspec

    write_tar(tmp_path / "00000.tar", [("0", {"jpg": b"1", "txt": b"a"})])
    fsspec.filesystem("memory").pipe("/pool/00000.tar", (tmp_path / "00000.tar").read_bytes())
    (shard,) = list_shards("memory://pool")
    assert [s.key for s in read_samples(shard, Counter())] == ["0"]
    assert fingerprint([shard]) == fingerprint(list_shards(str(tmp_path)))


@pytest.mark.parametrize(("folder", "message"), [("missing", "does not exist"), ("empty", "holds no .tar")])
def test_a_folder_without_shards_is_refused(tmp_path: Path, folder: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"shards: .*{folder} {message}"):
        list_shards(str(tmp_path / folder))


def test_members_are_grouped_by_key_up_to_the_first_dot_of_the_name(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.b/1", {"jpg": b"1", "seg.png": b"2"}), ("a.b/2", {"TXT": b"3"})])
    assert list(read_samples(str(tmp_path / "0.tar"), Counter())) == [
        Sample("a.b/1", {"jpg": b"1", "seg.png": b"2"}),
        Sample("a.b/2", {"txt": b"3"}),
    ]


@pytest.mark.parametrize(
    ("members", "caption"),
    [
        ({"txt": b" a cat \n"}, "a cat"),
        ({"txt": "caf\u00e9".encode("latin-1")}, "caf\ufffd"),
        ({"json": json.dumps({"caption": "a dog"}).encode()}, "a dog"),
        ({"txt": b"a cat", "json": json.dumps({"caption": "a dog"}).encode()}, "a cat"),
    ],
)
def test_the_caption_is_the_text_or_in_the_json(members: dict[str, bytes], caption: str) -> None:
    assert Sample("0", members).caption == caption


@pytest.mark.parametrize(
    "members",
    [{}, {"txt": b"  "}, {"json": b"{"}, {"json": b"[1]"}, {"json": b'{"caption": 5}'}, {"json": b"[" * 100_000}],
)
def test_no_caption_is_a_bad_sample(members: dict[str, bytes]) -> None:
    with pytest.raises(BadSampleError, match="no caption"):
        Sample("0", members).caption  # noqa: B018


def test_no_image_is_a_bad_sample() -> None:
    with pytest.raises(BadSampleError, match="no image"):
        Sample("0", {"txt": b"a", "pyd": b"cos\nsystem\n(S'false'\ntR."}).image  # noqa: B018


@pytest.mark.parametrize("damage", ["in a header", "in an image", "between samples", "a header overwritten"])
def test_a_damaged_shard_yields_what_comes_before_and_is_counted(tmp_path: Path, damage: str) -> None:
    sample = {"jpg": bytes(range(1, 101)), "txt": b"red"}  # 4 blocks of 512 bytes
    write_tar(tmp_path / "0.tar", [(str(i), sample) for i in range(4)])
    tar, cut = (tmp_path / "0.tar").read_bytes(), 3 * 4 * 512
    damaged = {
        "in a header": tar[: cut + 100],
        "in an image": tar[: cut + 512 + 50],
        "between samples": tar[:cut],
        "a header overwritten": tar[:cut] + b"x" * 512 + tar[cut + 512 : cut + 1024],
    }
    (tmp_path / "0.tar").write_bytes(damaged[damage])
    skipped = Counter[str]()
    samples = list(read_samples(str(tmp_path / "0.tar"), skipped))
    assert skipped == {"broken shard": 1}
    assert samples == [Sample(str(i), sample) for i in range(3)]


def test_what_is_no_tar_is_counted(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"<html>not found</html>" * 100)
    skipped = Counter[str]()
    assert list(read_samples(str(tmp_path / "0.tar"), skipped)) == []
    assert skipped == {"broken shard": 1}


def test_a_missing_shard_is_an_error_and_not_a_bad_sample(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_samples(str(tmp_path / "0.tar"), Counter()))


def test_the_fingerprint_sees_content_and_names(tmp_path: Path) -> None:
    for folder, name, text in (("a", "0", b"red"), ("b", "0", b"red"), ("c", "0", b"bed"), ("d", "1", b"red")):
        write_tar(tmp_path / folder / f"{name}.tar", [("0", {"txt": text})])
    a, b, c, d = (fingerprint(list_shards(str(tmp_path / folder))) for folder in "abcd")
    assert a == b
    assert len({a, c, d}) == 3
