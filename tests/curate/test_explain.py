"""`curate explain`, `curate doctor` and `curate recipes`: what they answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from curate.cli import run
from curate.recipe import builtin_recipes
from tests.conftest import Pair, encoded, messy_pairs, photo, write_pool

RECIPE = """
filters:
  - image_size: {min_side: 64}
  - caption_rules
  - exact_duplicates
  - image_size: {min_side: 100}
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    pairs = messy_pairs()
    pairs += [Pair("100-copy-2", pairs[0].image, "one more \x1b[31mcopy of the first picture")]
    pairs += [Pair("400-medium", encoded(photo(400, (90, 90))), "a picture of a medium size in the town")]
    twin = Pair("500-twin", encoded(photo(500)), "two samples of one uid in the town", details={"uid": "twin-uid"})
    pairs += [twin, Pair("501-twin", encoded(photo(501)), "two samples of one uid too", details={"uid": "twin-uid"})]
    write_pool(folder / "pool", pairs, per_shard=9)
    (folder / "recipe.yaml").write_text(RECIPE)
    arguments = [str(folder / "pool"), str(folder / "out"), "-r", str(folder / "recipe.yaml"), "--workers", "1"]
    assert run(["filter", *arguments]) == 0
    return folder / "out"


def rows(out: Path) -> list[dict]:
    return pq.read_table(out / "selection.parquet").to_pylist()


def answer(out: Path, name: str, capsys: pytest.CaptureFixture[str], *more: str) -> list[dict]:
    capsys.readouterr()
    assert run(["explain", str(out), name, "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_kind_of_verdict_agrees_with_the_selection(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in {row["filter"] for row in rows(out)}:
        row = next(row for row in rows(out) if row["filter"] == name)
        (found,) = answer(out, row["uid"], capsys)
        assert {field: found[field] for field in ("uid", "shard", "key", "keep", "filter", "reason")} == {
            field: row[field] for field in ("uid", "shard", "key", "keep", "filter", "reason")
        }


def test_filters_up_to_the_one_that_dropped(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = answer(out, "107-short", capsys)
    assert [(step["filter"], step["answer"]) for step in found["filters"]] == [
        ("image_size", "passed"), ("caption_rules", "dropped"), ("exact_duplicates", "not reached"),
        ("image_size#2", "not reached"),
    ]  # fmt: skip
    assert found["caption"] == "photo"
    assert found["filters"][0]["parameters"]["min_side"] == 64
    assert found["filters"][0]["values"] == {"width": 160, "height": 120}
    assert found["filters"][1]["values"] == {"caption_words": 1, "caption_length": 5, "caption_alpha": 1.0}


def test_a_second_filter_of_a_kind_answers_for_itself(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = answer(out, "400-medium", capsys)
    assert found["filter"] == "image_size#2"
    assert [step["answer"] for step in found["filters"]] == ["passed", "passed", "passed", "dropped"]
    assert found["filters"][3]["parameters"]["min_side"] == 100


def test_duplicates_point_both_ways(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = {row["key"]: row for row in rows(out) if row["key"] in ("000000", "100-copy", "100-copy-2")}
    (kept,) = [row for row in group.values() if row["keep"]]
    (found,) = answer(out, kept["uid"], capsys)
    assert found["duplicates_in_all"] == 2
    assert {neighbour["uid"] for neighbour in found["duplicates"]} == {
        row["uid"] for row in group.values() if not row["keep"]
    }
    assert all("first picture" in n["caption"] or "number 0" in n["caption"] for n in found["duplicates"])
    (copy,) = answer(out, found["duplicates"][0]["uid"], capsys)
    assert copy["duplicate_of"]["uid"] == kept["uid"] and copy["duplicate_of"]["keep"]


def test_a_uid_its_start_and_a_key_name_the_same_sample(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = next(row for row in rows(out) if row["key"] == "000003")
    assert answer(out, "000003", capsys) == answer(out, row["uid"], capsys) == answer(out, row["uid"][:12], capsys)


def test_all_samples_of_a_uid_are_shown(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [found["key"] for found in answer(out, "twin-uid", capsys)] == ["500-twin", "501-twin"]
    assert [found["key"] for found in answer(out, "twin-u", capsys)] == ["500-twin", "501-twin"]


def test_an_unreadable_sample_is_explained(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = answer(out, "112-text", capsys)
    assert found["filter"] == "unreadable" and "cannot be opened" in found["reason"]
    assert found["filters"][0] == {"filter": "unreadable", "answer": "dropped", "parameters": {}, "values": {}}
    assert {step["answer"] for step in found["filters"][1:]} == {"not reached"}


@pytest.mark.parametrize("name", ["no-such-sample", ""])
def test_a_name_of_no_sample_is_a_wrong_request(out: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", str(out), name]) == 2
    said = capsys.readouterr().err
    assert said.startswith("curate: UID: no sample") and said.count("\n") == 1


def test_a_start_of_many_uids_is_a_wrong_request(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    starts = [row["uid"][0] for row in rows(out)]
    common = next(start for start in starts if starts.count(start) > 1 and start != "t")
    assert run(["explain", str(out), common]) == 2
    assert "give more of it" in capsys.readouterr().err


def test_text_says_it_and_control_characters_are_gone(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["explain", str(out), "100-copy-2"]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "copy of the first picture" in said
    assert "asks min_side 64" in said


def test_without_pool_or_features_the_verdict_remains(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["pool"]["url"] = str(tmp_path / "gone")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (found,) = answer(copy, "107-short", capsys)
    assert found["filter"] == "caption_rules" and found["values"] == {} and found["caption"] is None
    assert answer(copy, "107-short", capsys, "--pool", str(out.parent / "pool"))[0]["caption"] == "photo"
    assert run(["explain", str(copy), "107-short", "--pool", str(tmp_path / "gone")]) == 2


def test_recipes_lists_and_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes"]) == 0
    said = capsys.readouterr().out
    for name, text in builtin_recipes().items():
        assert name in said
        assert run(["recipes", name]) == 0
        assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(text)
    assert run(["recipes", "nope"]) == 2
    assert "NAME: no built-in recipe 'nope'" in capsys.readouterr().err


def test_doctor_finds_what_every_run_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"]
    names = [finding["name"] for finding in said["findings"]]
    assert {"python", "faiss", "language model", "torch", "java for spark", "prefect", "free disk"} <= set(names)
    assert all(finding["ok"] or finding["advice"] for finding in said["findings"])


def test_doctor_fails_on_what_is_broken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from curate.commands import doctor

    def broken(name: str, required: bool) -> doctor.Finding:
        raise OSError("libomp.so: cannot open shared object file")

    monkeypatch.setattr(doctor, "_faiss", broken)
    monkeypatch.setattr(doctor, "_open_clip", broken)
    monkeypatch.setenv("JAVA_HOME", "/no/such/java")
    monkeypatch.setenv("PREFECT_API_URL", "http://user:secret@127.0.0.1:9/api")
    assert run(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "broken   faiss" in said and "libomp.so" in said
    assert "missing  java for spark" in said
    assert "secret" not in said
