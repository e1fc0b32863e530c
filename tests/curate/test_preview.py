"""`curate filter --dry-run` and sweeps of `--set`: what a recipe would do, with nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curate import select
from curate.cli import run
from curate.preview import gap
from curate.sweep import split_sweep
from tests.conftest import messy_pairs, write_pool

RECIPE = """
filters:
  - image_size: {min_side: 64}
  - caption_rules
  - exact_duplicates
  - score: {column: sharpness, keep_fraction: 0.5}
"""


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return write_pool(tmp_path / "pool", messy_pairs())


def filter_json(pool: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict:
    capsys.readouterr()
    recipe = str(pool.parent / "recipe.yaml")
    assert run(["filter", str(pool), "-r", recipe, "--workers", "1", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_dry_run_shows_the_funnel_and_examples_and_writes_only_the_cache(
    pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = filter_json(pool, capsys, "--dry-run")
    funnel = {step["filter"]: step["dropped"] for step in found["funnel"]}
    shown = found["examples"]["dropped"]
    assert {name: len(samples) for name, samples in shown.items()} == {n: min(3, d) for n, d in funnel.items() if d}
    assert [s["key"] for s in shown["image_size"]] == ["102-small"]
    assert shown["image_size"][0]["reason"].endswith("pixels: shorter side < 64")
    (copy,) = shown["exact_duplicates"]
    assert copy["duplicate_of"] and copy["caption"]
    assert len(found["examples"]["kept"]) == 3 and all(s["reason"] is None for s in found["examples"]["kept"])
    assert sorted(p.name for p in pool.parent.iterdir()) == ["pool", "recipe.yaml"]
    assert found["selection"]["rows"] == 40


def test_dropped_examples_are_those_nearest_to_the_bound(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = filter_json(pool, capsys, "--dry-run")
    gaps = [gap(s["reason"]) for s in found["examples"]["dropped"]["score"]]
    assert len(gaps) == 3 and gaps == sorted(gaps) and gaps[0] < 0.5


def test_a_dry_run_is_the_same_with_any_number_of_workers(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len({json.dumps(filter_json(pool, capsys, "--dry-run", "--workers", n)["examples"]) for n in "112"}) == 1


def test_a_large_pool_shows_the_same_though_few_drops_get_their_reason(
    pool: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = filter_json(pool, capsys, "--dry-run")
    monkeypatch.setattr(select, "LARGE", 0)
    large = filter_json(pool, capsys, "--dry-run")
    assert large["examples"] == whole["examples"]  # none of these filters drops many, so all drops got theirs
    monkeypatch.setattr(select, "SHARE", 3)
    monkeypatch.setattr(select, "ENOUGH", 2)
    some = filter_json(pool, capsys, "--dry-run")
    assert [step["dropped"] for step in some["funnel"]] == [step["dropped"] for step in whole["funnel"]]
    assert {name: len(shown) for name, shown in some["examples"]["dropped"].items()} == {
        name: len(shown) for name, shown in whole["examples"]["dropped"].items()
    }
    assert sum(s["reason"] is not None for s in some["examples"]["dropped"]["score"]) >= 2


def test_a_dry_run_reads_as_text(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["filter", str(pool), "-r", str(pool.parent / "recipe.yaml"), "--workers", "1", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "image_size, for example\n" in said and "kept, for example\n" in said
    assert "pixels: shorter side < 64" in said


def test_a_sweep_counts_what_each_value_keeps_and_shares(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = filter_json(pool, capsys, "--set", "score.keep_fraction=0.2,0.5,1")
    single = [filter_json(pool, capsys, "--dry-run", "--set", f"score.keep_fraction={v}") for v in ("0.2", "0.5", "1")]
    kept = [row["kept"] for row in found["values"]]
    assert kept == [result["selection"]["kept"] for result in single] and kept == sorted(kept)
    # A larger fraction keeps all that a smaller one does.
    assert found["values"][0]["shared"] == dict.fromkeys(("0.2", "0.5", "1"), kept[0])
    assert found["values"][1]["overlap"]["1"] == pytest.approx(kept[1] / kept[2], abs=1e-6)
    assert found["parameter"] == "score.keep_fraction" and found["rows"] == 40


def test_a_sweep_of_an_early_filter_runs_the_later_ones_again(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = filter_json(pool, capsys, "--set", "image_size.min_side=10,64,2000")
    single = filter_json(pool, capsys, "--dry-run", "--set", "image_size.min_side=10")
    assert [row["kept"] for row in found["values"]][::2] == [single["selection"]["kept"], 0]
    assert found["values"][2]["overlap"] == {"10": 0.0, "64": 0.0, "2000": 1.0}
    assert found["values"][2]["share"] == 0


def test_a_sweep_reads_as_a_table(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(pool.parent / "recipe.yaml")
    assert run(["filter", str(pool), "-r", recipe, "--workers", "1", "--set", "score.keep_fraction=0.2,0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["score.keep_fraction", "kept", "share", "|", "0.2", "|", "0.5"]
    assert len(lines) == 4 and lines[1].split()[0] == "0.2"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["out", "--set", "score.keep_fraction=0.2,0.3"], "OUT: --set with several values writes nothing"),
        (["--set", "score.keep_fraction=0.2,0.3", "--set", "image_size.min_side=1,2"], "only one parameter can take"),
        (["--set", "score.keep_fraction=0.2,,0.3"], "each value between commas once, and none empty"),
        (["--set", "score.keep_fraction=0.2,0.2"], "each value between commas once, and none empty"),
        (["--set", "score.keep_fraction=0.2,7"], "score.keep_fraction: Input should be less than or equal to 1"),
        (["--set", "nosuch.parameter=1,2"], "the recipe has no filter 'nosuch'"),
    ],
)
def test_a_wrong_sweep_is_one_line(
    pool: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert run(["filter", str(pool), *options, "-r", str(pool.parent / "recipe.yaml")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (pool / "_features").exists()


def test_a_list_in_brackets_is_one_value() -> None:
    assert split_sweep(["language.keep=[en, de]", "a.b='x,y'"]) == (("language.keep=[en, de]", "a.b='x,y'"), None)
