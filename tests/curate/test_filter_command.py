"""`curate filter` from end to end, on real tar files."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from curate.cli import run
from tests.conftest import encoded, members, messy_pairs, pair, photo, shared_data, write_pool

RECIPE = """
name: all
filters:
  - image_size: {min_side: 64}
  - aspect_ratio
  - image_quality
  - caption_rules
  - language
  - exact_duplicates
  - near_duplicate_captions: {boilerplate: 2, min_jaccard: 0.97}
  - near_duplicate_images: {max_distance: 8}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    file = tmp_path / "all.yaml"
    file.write_text(RECIPE)
    return str(file)


def verdicts(out: Path) -> dict[str, dict]:
    return {row["key"]: row for row in pq.read_table(out / "selection.parquet").to_pylist()}


def dataset_bytes(out: Path) -> dict[str, bytes]:
    files = [out / "selection.parquet", *sorted((out / "shards").iterdir())]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def test_every_sample_gets_a_verdict_and_a_reason(tmp_path: Path, recipe: str) -> None:
    pool, out = write_pool(tmp_path / "pool", messy_pairs()), tmp_path / "out"
    assert run(["filter", str(pool), str(out), "-r", recipe, "--workers", "1"]) == 0
    found = verdicts(out)
    assert list(found) == [item.key for item in messy_pairs()]
    dropped = {key: row["filter"] for key, row in found.items() if not row["keep"]}
    either = {"000000", "100-copy", "000001", "101-resaved"}  # of each pair one stays, whichever has the smaller uid
    assert {key: name for key, name in dropped.items() if key not in either} == {
        "102-small": "image_size",
        "103-banner": "aspect_ratio",
        "104-blank": "image_quality",
        "105-dark": "image_quality",
        "106-german": "language",
        "107-short": "caption_rules",
        "108-digits": "caption_rules",
        "111-truncated": "unreadable",
        "112-text": "unreadable",
        "113-empty": "unreadable",
        "114-noimage": "unreadable",
        "115-nocaption": "unreadable",
    }
    assert ("000000" in dropped) != ("100-copy" in dropped)
    assert ("000001" in dropped) != ("101-resaved" in dropped)
    for row in found.values():
        assert row["keep"] == (row["filter"] is None) == (row["reason"] is None)
    copy = next(row for row in found.values() if row["filter"] == "exact_duplicates")
    survivor = next(row for row in found.values() if row["uid"] == copy["duplicate_of"])
    assert survivor["keep"] and {copy["key"], survivor["key"]} == {"000000", "100-copy"}


def test_kept_bytes_are_the_inputs(tmp_path: Path, recipe: str) -> None:
    pool, out = write_pool(tmp_path / "pool", messy_pairs()), tmp_path / "out"
    run(["filter", str(pool), str(out), "-r", recipe, "--workers", "1", "--samples-per-shard", "7"])
    kept = {key for key, row in verdicts(out).items() if row["keep"]}
    given = {name: data for name, data in members(pool).items() if name.split(".")[0] in kept}
    assert members(out / "shards") == given
    rows = [row for p in sorted((out / "shards").glob("*.parquet")) for row in pq.read_table(p).to_pylist()]
    assert [row["key"] for row in rows] == [key for key, row in verdicts(out).items() if row["keep"]]
    assert (
        rows[5]["width"] == 160
        and rows[5]["caption"] == f"a quiet picture number {int(rows[5]['key'])} of the old town"
    )


def test_counts_add_up_in_the_manifest(tmp_path: Path, recipe: str) -> None:
    pool, out = write_pool(tmp_path / "pool", messy_pairs()), tmp_path / "out"
    run(["filter", str(pool), str(out), "-r", recipe, "--workers", "1"])
    manifest, found = json.loads((out / "manifest.json").read_text()), verdicts(out)
    by_filter = Counter(row["filter"] for row in found.values())
    assert [step["in"] for step in manifest["funnel"][1:]] == [step["out"] for step in manifest["funnel"][:-1]]
    assert {step["filter"]: step["dropped"] for step in manifest["funnel"] if step["dropped"]} == {
        name: count for name, count in by_filter.items() if name
    }
    assert manifest["selection"]["rows"] == manifest["pool"]["samples"] == len(found) == 40
    assert manifest["selection"]["kept"] == by_filter[None] == sum(s["samples"] for s in manifest["shards"])
    assert manifest["measure"]["images_decoded"] == 36


def test_a_second_recipe_opens_no_image(tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_pool(tmp_path / "pool", messy_pairs())
    run(["filter", str(pool), str(tmp_path / "a"), "-r", recipe, "--workers", "1"])
    assert run(["filter", str(pool), str(tmp_path / "b"), "-r", recipe, "--set", "language.keep=[en, de]"]) == 0
    assert "images decoded: 0;" in capsys.readouterr().out.splitlines()[-2]
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["measure"]["images_decoded"] == 0 and manifest["measure"]["shards_cached"] == 5
    assert verdicts(tmp_path / "b")["106-german"]["keep"]


def test_runs_and_workers_give_the_same_bytes(tmp_path: Path, recipe: str) -> None:
    found = []
    for name, workers in (("a", "1"), ("b", "2"), ("c", "2")):
        pool = write_pool(tmp_path / f"pool{name}", messy_pairs())
        out = tmp_path / name
        run(["filter", str(pool), str(out), "-r", recipe, "--workers", workers, "--samples-per-shard", "6"])
        found.append(dataset_bytes(out))
    assert len(found[0]) > 5 and found[0] == found[1] == found[2]


def test_a_finished_dataset_is_left_alone_and_another_is_not_overwritten(
    tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, out = write_pool(tmp_path / "pool", messy_pairs()), tmp_path / "out"
    command = ["filter", str(pool), str(out), "-r", recipe, "--workers", "1"]
    run(command)
    before = (out / "manifest.json").stat().st_mtime_ns
    assert run(command) == 0 and (out / "manifest.json").stat().st_mtime_ns == before
    change = [*command, "--set", "image_size.min_side=10"]
    assert run(change) == 2
    assert "holds a dataset made from another request (recipe_hash differ)" in capsys.readouterr().err
    assert run([*change, "--overwrite"]) == 0
    assert verdicts(out)["102-small"]["filter"] != "image_size"


@pytest.mark.parametrize("moment", [0.6, 0.9])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path, recipe: str, moment: float) -> None:
    pairs = [pair(n) for n in range(160)]
    whole = write_pool(tmp_path / "whole", pairs)
    command = [
        sys.executable,
        "-m",
        "curate.cli",
        "filter",
        "-r",
        recipe,
        "--workers",
        "2",
        "--samples-per-shard",
        "10",
    ]
    began = time.monotonic()
    subprocess.run([*command, str(whole), str(tmp_path / "a")], check=True, capture_output=True)
    seconds = time.monotonic() - began
    pool = write_pool(tmp_path / "killed", pairs)
    process = subprocess.Popen(
        [*command, str(pool), str(tmp_path / "b")], stderr=subprocess.DEVNULL, start_new_session=True
    )
    time.sleep(seconds * moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run([*command, str(pool), str(tmp_path / "b")], check=True, capture_output=True)
    assert dataset_bytes(tmp_path / "a") == dataset_bytes(tmp_path / "b")


def test_keys_that_repeat_between_shards_do_not_meet_in_one(tmp_path: Path) -> None:
    pool = write_pool(
        tmp_path / "pool",
        [pair(n % 4, f"number {n} of many small pictures here", encoded(photo(n))) for n in range(12)],
        4,
    )
    out = tmp_path / "out"
    assert run(["filter", str(pool), str(out), "--workers", "1"]) == 0
    assert [s["samples"] for s in json.loads((out / "manifest.json").read_text())["shards"]] == [4, 4, 4]
    for path in (out / "shards").glob("*.tar"):
        with tarfile.open(path) as tar:
            assert len(tar.getnames()) == len(set(tar.getnames())) == 8


def test_everything_dropped_is_a_dataset_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pool, out = write_pool(tmp_path / "pool", [pair(n) for n in range(4)]), tmp_path / "out"
    assert run(["filter", str(pool), str(out), "--set", "image_size.min_side=5000", "--workers", "1"]) == 0
    assert not any(row["keep"] for row in verdicts(out).values())
    assert "image_size dropped 4 of 4 samples" in caplog.text


USER_FILTER = '''
"""Drop captions that shout."""

from filters.contract import RowFilter


class NoShouting(RowFilter):
    max_marks: int = 0

    @property
    def reads(self):
        return ("caption",)

    def keep(self, t):
        return self._marks(t) <= self.max_marks

    def reason(self, t):
        return self._marks(t).cast("string") + f" exclamation marks > {self.max_marks}"

    def _marks(self, t):
        return t.caption.length() - t.caption.replace("!", "").length()
'''


def test_a_users_own_filter_from_a_file_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "my_filters.py").write_text(USER_FILTER)
    (tmp_path / "mine.yaml").write_text("filters:\n  - my_filters:NoShouting: {max_marks: 1}\n")
    pairs = [pair(0), pair(1, "buy now!!! only today!"), pair(2, "what a day!")]
    pool, out = write_pool(tmp_path / "pool", pairs), tmp_path / "out"
    assert run(["filter", str(pool), str(out), "-r", str(tmp_path / "mine.yaml")]) == 0
    row = verdicts(out)["000001"]
    assert (row["filter"], row["reason"]) == ("my_filters:NoShouting", "4 exclamation marks > 1")
    assert [r["keep"] for r in verdicts(out).values()] == [True, False, True]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no/such/pool", "out"], "POOL: no/such/pool does not exist"),
        (["{empty}", "out"], "POOL: {empty} is empty; give a folder of WebDataset shards"),
        (["{notars}", "out"], "POOL: {notars} holds no .tar shard"),
        (["{pool}", "{pool}/out"], "OUT: {pool}/out lies in the pool"),
        (["{pool}"], "OUT: give a folder for the dataset, or --dry-run"),
        (["{pool}", "out", "--engine", "dask"], "--engine: no engine 'dask'; there are local, spark"),
        (["{pool}", "out", "-r", "nope"], "--recipe: no file 'nope'"),
        (["{pool}", "out", "--workers", "0"], "Invalid value for '--workers'"),
        (["{pool}", "out", "--set", "image_size.min_side=x"], "default: filters[0].image_size.min_side: "),
        (
            ["{pool}", "out", "-r", "web-clip", "--set", "features.clip.model=nope"],
            "features.clip.model: open_clip knows no",
        ),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, messy_pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notars").mkdir()
    (tmp_path / "notars" / "file.txt").touch()
    (tmp_path / "empty").mkdir()
    places = {"{pool}": messy_pool, "{empty}": tmp_path / "empty", "{notars}": tmp_path / "notars"}
    for name, place in places.items():
        arguments, said = [a.replace(name, str(place)) for a in arguments], said.replace(name, str(place))
    assert run(["filter", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"curate: {said}") and "\n" not in error
    assert not (tmp_path / "out").exists()


def real_pool(folder: Path) -> Path:
    """Photos, captioned photos and CIFAR-10 as shards of 500."""
    rows = [
        (f"p-{r['key']}", r["jpg"], f"a photo of a {r['label']}")
        for r in pq.read_table(shared_data("photos.parquet")).to_pylist()
    ]
    rows += [
        (f"c-{r['key']}", r["jpg"], r["captions"][0])
        for r in pq.read_table(shared_data("captioned.parquet")).to_pylist()
    ]
    rows += [
        (f"f-{r['key']}", r["jpg"], f"a photo of a {r['label']}")
        for r in pq.read_table(shared_data("cifar10-test.parquet")).slice(0, 1100).to_pylist()
    ]
    folder.mkdir()
    for start in range(0, len(rows), 500):
        with tarfile.open(folder / f"{start // 500:05d}.tar", "w") as tar:
            for key, image, caption in rows[start : start + 500]:
                for suffix, data in (("jpg", image), ("txt", caption.encode())):
                    info = tarfile.TarInfo(f"{key.removesuffix('.jpg')}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


@pytest.mark.slow
@pytest.mark.shared_data
def test_real_photos_from_end_to_end(tmp_path: Path) -> None:
    pool, out = real_pool(tmp_path / "pool"), tmp_path / "out"
    assert run(["filter", str(pool), str(out), "--set", "image_size.min_side=32"]) == 0
    table = pq.read_table(out / "selection.parquet")
    assert len(table) == 2000 and len(set(table["uid"].to_pylist())) == 2000
    kept = {key for key, row in verdicts(out).items() if row["keep"]}
    assert 700 < len(kept) < 2000
    given = members(pool)
    assert all(given[name] == data for name, data in members(out / "shards").items())
    assert not any(r["filter"] == "near_duplicate_images" and r["key"].startswith("p-") for r in verdicts(out).values())


def test_a_pool_and_a_dataset_on_a_store(tmp_path: Path, recipe: str) -> None:
    pool, out = write_pool(tmp_path / "pool", messy_pairs()), tmp_path / "out"
    run(["filter", str(pool), str(out), "-r", recipe, "--workers", "1"])
    store = fsspec.filesystem("memory")
    for shard in pool.glob("*.tar"):
        store.put_file(str(shard), f"/store/pool/{shard.name}")
    assert run(["filter", "memory://store/pool", "memory://store/out", "-r", recipe, "--workers", "1"]) == 0
    for name, data in dataset_bytes(out).items():
        assert store.cat_file(f"/store/out/{name}") == data
    assert store.exists("/store/out/report.html") and store.exists("/store/out/manifest.json")
    again = ["filter", "memory://store/pool", "memory://store/out", "-r", recipe, "--workers", "1", "--json"]
    assert run(again) == 0


def test_hostile_names_and_captions_are_samples_like_others(tmp_path: Path) -> None:
    captions = {
        b"caf\xe9": "a caption beside a name that is not UTF-8",
        b"nul": "a caption with a \0 in the middle of it",
        b"../../etc/passwd": "a name that points out of the folder",
        b"long": "word " * 100_000,
        b"quote'; DROP TABLE rows; --": "a name that is a piece of SQL",
        b"bidi": "a caption \u202e that turns around",
        "\N{PILE OF POO}".encode(): "an emoji for a name",
    }
    shard = tmp_path / "pool" / "00000.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w", encoding="utf-8", errors="surrogateescape", format=tarfile.GNU_FORMAT) as tar:
        for number, (name, caption) in enumerate(captions.items()):
            for suffix, data in (("jpg", encoded(photo(number))), ("txt", caption.encode())):
                info = tarfile.TarInfo(f"{name.decode('utf-8', 'surrogateescape')}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    out = tmp_path / "out"
    assert (
        run(["filter", str(tmp_path / "pool"), str(out), "--set", "language.min_probability=0", "--workers", "1"]) == 0
    )
    found = verdicts(out)
    assert list(found) == ["caf\ufffd", *(name.decode() for name in list(captions)[1:])]
    assert found["long"]["filter"] == "caption_rules" and found["nul"]["filter"] in (None, "language")
    with tarfile.open(out / "shards" / "00000.tar", encoding="utf-8", errors="surrogateescape") as tar:
        assert tar.getnames()[0].encode("utf-8", "surrogateescape") == b"caf\xe9.jpg"
