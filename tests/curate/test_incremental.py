"""`curate filter --after STATE`: a pool a night, each compared with all before it, on real tar files."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest

from curate.cli import run
from curate.curation import measure
from curate.engines import open_engine
from curate.kept import night as night_module
from curate.pool import open_pool
from curate.recipe import load_recipe
from curate.select import select
from curate.selection import write_selection
from curate.storage import Folder
from tests.conftest import Pair, encoded, members, messy_pairs, pair, photo, write_shard
from tests.curate.test_spark import need_spark

RECIPE = """
filters:
  - image_size: {min_side: 32}
  - exact_duplicates
  - near_duplicate_captions: {boilerplate: 5}
  - near_duplicate_images: {mirror: true}
"""
VERDICT = ["uid", "keep", "filter", "reason", "duplicate_of"]


def pairs() -> list[Pair]:
    """The messy pool, and after it copies of what stands in its first half."""
    copies = [
        Pair("200-copy", encoded(photo(3)), "the same file as an early one, with other words about it"),
        Pair("201-resaved", encoded(photo(4), quality=50), "an early picture saved once more at a lower quality"),
        Pair("202-crop", encoded(photo(5, (320, 240)).crop((12, 10, 310, 232))), "an early one, larger and cropped"),
        pair(203, "a quiet picture number 6 of the old town."),
    ]
    return [*messy_pairs(), *copies]


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return str(file)


def write_nights(folder: Path, cuts: list[int]) -> list[Path]:
    """A pool for each night, and the pool of all of them; a night is a shard."""
    everything = pairs()
    bounds = itertools.pairwise([0, *cuts, len(everything)])
    pools = []
    for number, (start, stop) in enumerate(bounds):
        shard = write_shard(folder / f"night-{number}" / f"{number:05d}.tar", everything[start:stop])
        (folder / "all").mkdir(exist_ok=True)
        shutil.copy(shard, folder / "all" / shard.name)
        pools.append(shard.parent)
    return pools


def curate(pool: Path, out: Path, recipe: str, *more: str) -> int:
    return run(["filter", str(pool), str(out), "-r", recipe, "--workers", "1", *more])


def verdicts(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / "selection.parquet").select(VERDICT).to_pylist()


def test_nights_keep_what_one_run_over_all_keeps(
    tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pools, state = write_nights(tmp_path, [17, 18, 30]), tmp_path / "state"
    nights = []
    for number, pool in enumerate(pools):
        out = tmp_path / f"out-{number}"
        assert curate(pool, out, recipe, "--after", str(state)) == 0
        nights += verdicts(out)
    engine = open_engine("local", 1)
    chosen = load_recipe(recipe)
    tasks = measure(open_pool(str(tmp_path / "all")), chosen, engine).tasks
    write_selection(select(engine, tasks, chosen, generations=[1, 2, 3]), Folder(str(tmp_path / "one")))
    engine.close()
    assert nights == verdicts(tmp_path / "one")
    first = {row["uid"] for row in verdicts(tmp_path / "out-0")}
    last = verdicts(tmp_path / "out-3")
    across = {row["filter"] for row in last if row["duplicate_of"] in first}
    assert across == {"exact_duplicates", "near_duplicate_captions", "near_duplicate_images"}
    manifest = json.loads((tmp_path / "out-3" / "manifest.json").read_text())
    assert manifest["selection"]["rows"] == len(last) and manifest["after"]["generation"] == 3
    assert manifest["earlier"]["earlier_samples"] == 30
    assert 0 < manifest["earlier"]["looked_at"]["near_duplicate_images"] < 30
    capsys.readouterr()
    dropped = next(row for row in last if row["duplicate_of"] in first)
    assert run(["explain", str(tmp_path / "out-3"), dropped["uid"]]) == 0
    assert f"duplicate of\n  {dropped['duplicate_of']}  of an earlier pool" in capsys.readouterr().out


def test_the_same_night_is_added_once_and_to_the_same_bytes(tmp_path: Path, recipe: str) -> None:
    pools, state = write_nights(tmp_path, [20]), tmp_path / "state"
    for number, pool in enumerate(pools):
        assert curate(pool, tmp_path / f"out-{number}", recipe, "--after", str(state)) == 0
    before = {file: file.read_bytes() for file in sorted(state.rglob("*.*"))}
    out = tmp_path / "out-1"
    files, selection = members(out / "shards"), (out / "selection.parquet").read_bytes()
    assert curate(pools[1], out, recipe, "--after", str(state)) == 0  # up to date
    shutil.rmtree(out)
    assert curate(pools[1], out, recipe, "--after", str(state)) == 0  # decided again, as it was
    assert members(out / "shards") == files and (out / "selection.parquet").read_bytes() == selection
    assert {file: file.read_bytes() for file in sorted(state.rglob("*.*"))} == before


@pytest.mark.parametrize("moment", ["add", "publish"])
def test_a_night_killed_before_or_after_it_was_added_ends_the_same(
    tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    pools, state = write_nights(tmp_path, [20]), tmp_path / "state"
    assert curate(pools[0], tmp_path / "out-0", recipe, "--after", str(state)) == 0
    shutil.copytree(state, tmp_path / "other")
    assert curate(pools[1], tmp_path / "whole", recipe, "--after", str(tmp_path / "other")) == 0
    real = night_module.Night.add

    def die(night: night_module.Night, *facts: Any) -> None:
        if moment == "publish":
            real(night, *facts)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(night_module.Night, "add", die)
        assert curate(pools[1], tmp_path / "out-1", recipe, "--after", str(state)) != 0
    assert not (tmp_path / "out-1" / "manifest.json").exists()
    assert curate(pools[1], tmp_path / "out-1", recipe, "--after", str(state)) == 0
    assert members(tmp_path / "out-1" / "shards") == members(tmp_path / "whole" / "shards")
    assert verdicts(tmp_path / "out-1") == verdicts(tmp_path / "whole")
    names = [sorted(str(f.relative_to(s)) for f in s.rglob("*.*")) for s in (state, tmp_path / "other")]
    assert names[0] == names[1]


def test_wrong_requests_are_one_line(tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    pools, state = write_nights(tmp_path, [20, 30]), tmp_path / "state"
    assert curate(pools[0], tmp_path / "out-0", recipe, "--after", str(state)) == 0
    assert curate(pools[1], tmp_path / "out-1", recipe, "--after", str(state)) == 0
    capsys.readouterr()

    def refused(pool: Path, *more: str, after: Path = state) -> str:
        assert curate(pool, tmp_path / "no", recipe, "--after", str(after), *more) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert not (tmp_path / "no" / "selection.parquet").exists()
        return said

    assert "near_duplicate_images: parameters.mirror is False, and in " in refused(
        pools[2], "--set", "near_duplicate_images.mirror=false"
    )
    assert "1 of its 3 shards" not in refused(tmp_path / "all") and "2 of its 3 shards are in " in refused(
        tmp_path / "all"
    )
    shutil.rmtree(tmp_path / "out-0")
    assert "this pool is generation 0 of " in refused(pools[0])
    assert "holds other files and no state" in refused(pools[2], after=tmp_path / "out-1")
    assert "remembers nothing for it" in refused(
        pools[2], "--set", "exact_duplicates.keep=first", after=_without(state)
    )


def _without(state: Path) -> Path:
    """The state without what it remembers for one filter."""
    other = state.with_name("less")
    shutil.copytree(state, other)
    for file in (other / "generations").iterdir():
        facts = json.loads(file.read_text())
        del facts["filters"]["exact_duplicates"]
        file.write_text(json.dumps(facts))
    return other


def test_two_nights_at_once_are_added_one_after_the_other(tmp_path: Path, recipe: str) -> None:
    pools, state = write_nights(tmp_path, [20, 30]), tmp_path / "state"
    assert curate(pools[0], tmp_path / "out-0", recipe, "--after", str(state)) == 0
    chosen, engine = load_recipe(recipe), open_engine("local", 1)
    measured = measure(open_pool(str(pools[1])), chosen, engine)
    slow = night_module.begin_night(
        night_module.open_state(str(state), chosen), chosen, measured,
        {"pool_fingerprint": measured.fingerprint, "recipe_hash": chosen.hash},
    )  # fmt: skip
    select(engine, measured.tasks, chosen, memory=slow)
    engine.close()
    assert curate(pools[2], tmp_path / "out-2", recipe, "--after", str(state)) == 0
    with pytest.raises(Exception, match=r"another night was added to .* meanwhile; run the same command again"):
        slow.add({}, measured)
    assert curate(pools[1], tmp_path / "out-1", recipe, "--after", str(state)) == 0
    assert len(list((state / "generations").iterdir())) == 3


def test_a_state_on_a_store(tmp_path: Path, recipe: str) -> None:
    pools, store = write_nights(tmp_path, [20]), f"memory://{tmp_path.name}/state"
    for number, pool in enumerate(pools):
        assert curate(pool, tmp_path / f"far-{number}", recipe, "--after", store) == 0
        assert curate(pool, tmp_path / f"near-{number}", recipe, "--after", str(tmp_path / "state")) == 0
    assert verdicts(tmp_path / "far-1") == verdicts(tmp_path / "near-1")
    files = fsspec.filesystem("memory").find(f"/{tmp_path.name}/state")
    assert len(files) == len([file for file in (tmp_path / "state").rglob("*.*") if file.is_file()])


@pytest.mark.spark
@pytest.mark.slow
def test_a_night_on_spark_is_the_same(tmp_path: Path, recipe: str) -> None:
    need_spark()
    pools = write_nights(tmp_path, [20])
    for number, pool in enumerate(pools):
        for engine in ("local", "spark"):
            out, state = tmp_path / f"{engine}-{number}", tmp_path / f"state-{engine}"
            assert curate(pool, out, recipe, "--engine", engine, "--after", str(state)) == 0
        assert verdicts(tmp_path / f"local-{number}") == verdicts(tmp_path / f"spark-{number}")
    files = [sorted(f.relative_to(s) for f in s.rglob("*.*")) for s in tmp_path.glob("state-*")]
    assert files[0] == files[1]


def test_clusters_are_those_of_the_first_night(tmp_path: Path, tiny_clip: Path) -> None:
    recipe, state = tmp_path / "semantic.yaml", tmp_path / "state"
    recipe.write_text(
        f"features:\n  clip: {{model: {tiny_clip}}}\n  clusters: {{clusters: 3}}\n"
        "filters:\n  - image_size: {min_side: 32}\n  - semantic_duplicates: {epsilon: 0.001}\n"
    )
    pools, nights = write_nights(tmp_path, [20]), []
    for number, pool in enumerate(pools):
        assert curate(pool, tmp_path / f"out-{number}", str(recipe), "--after", str(state)) == 0
        nights += verdicts(tmp_path / f"out-{number}")
    engine = open_engine("local", 1)
    fitted = load_recipe(str(recipe), (f"features.clusters.artifact={state / 'artifacts' / 'clusters.npz'}",))
    tasks = measure(open_pool(str(tmp_path / "all")), fitted, engine).tasks
    write_selection(select(engine, tasks, fitted, generations=[1, 2]), Folder(str(tmp_path / "one")))
    engine.close()
    assert nights == verdicts(tmp_path / "one")
    first = {row["uid"] for row in nights[:20]}
    assert {"200-copy", "201-resaved"} <= {key for key, of in _copies(tmp_path / "out-1").items() if of in first}
    before = (tmp_path / "out-0" / "selection.parquet").read_bytes()
    again = tmp_path / "again"
    assert curate(pools[1], again, str(recipe), "--after", str(state)) == 0  # the last night, decided once more
    assert verdicts(again) == verdicts(tmp_path / "out-1")
    assert before == (tmp_path / "out-0" / "selection.parquet").read_bytes()


def _copies(out: Path) -> dict[str, str]:
    """What was dropped for another sample: key to that one's uid."""
    rows = pq.read_table(out / "selection.parquet").to_pylist()
    return {row["key"]: row["duplicate_of"] for row in rows if row["duplicate_of"]}
