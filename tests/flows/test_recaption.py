"""Recaptioning as a flow, as the first stage of a recipe, and in the arms of an ablation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from curate.cli import run
from curate.engines import open_engine
from curate.hashing import facts_hash
from curate.pool import open_pool
from curate.recipe import load_recipe
from curate.storage import Folder
from flows.ablation import decide_arm
from flows.arms import plan_arms
from flows.experiment import Experiment
from flows.recaption import examples
from tests.conftest import Pair, encoded, members, messy_pairs, pair, photo, write_pool
from tests.curate.recaption_stand_ins import Parrot
from tests.curate.test_recaption_command import PARROT, everything, recaption, settings
from tests.flows.test_curation import ASK
from trainer.tasks.write import write_classification_task

RUN = """
import sys
from flows.recaption import recaption
recaption(**__import__("json").loads(sys.argv[1]))
"""  # and what the server then knows is asked in the same process: a temporary server starts slowly


def recipe(folder: Path, log: Path, *filters: Any, ratio: float = 0.5) -> dict[str, Any]:
    return {
        "recaption": {"candidates": "width >= 64", "backend": {PARROT: {"log": str(log)}}, "checks": [],
                      "mix": {"choice": "ratio", "ratio": ratio}},
        "filters": list(filters),
    }  # fmt: skip


@pytest.mark.slow
def test_the_flow_does_what_the_command_does_and_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    pool = write_pool(tmp_path / "pool", messy_pairs())
    file = settings(tmp_path, candidates="width >= 64")
    assert recaption(pool, tmp_path / "a", file, "--cache", str(tmp_path / "cache")) == 0
    asked = {"pool": str(pool), "out": str(tmp_path / "b"), "settings": file, "workers": 1}
    command = [sys.executable, "-c", RUN + ASK, json.dumps(asked)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["runs"] == ["Completed"]
    assert seen["tasks"] == ["judge", "measure", "recaption", "report", "write"]
    assert {"recaption-counts", "recaption-examples", "recaption-report"} <= seen["artifacts"].keys()


def test_examples_are_text_and_nothing_else(tmp_path: Path) -> None:
    evil = Pair("000001", encoded(photo(1)), "![x](http://evil) | <script>alert(1)</script> |\n# big")
    pool = write_pool(tmp_path / "pool", [evil, pair(2)])
    assert recaption(pool, tmp_path / "out", settings(tmp_path)) == 0
    lines = examples(Folder(str(tmp_path / "out"))).splitlines()
    assert len(lines) == 6 and r"\!\[x\]\(http\://evil\) \| \<script\>" in lines[4]


def test_a_recipe_that_recaptions_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, log, file = write_pool(tmp_path / "pool", messy_pairs()), tmp_path / "log", tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(tmp_path, log, "caption_rules", ratio=1.0)))
    command = ["filter", str(pool), str(tmp_path / "out"), "-r", str(file), "--workers", "1"]
    assert run(command) == 0
    assert "recaptioned: 36 of 40 samples have a new caption" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert found["recaption"]["counts"]["replaced"] == 36 and found["recaption"]["pool"] == str(pool)
    report = (tmp_path / "out" / "report.html").read_text()
    assert "36 of 40" in report and "plain picture" in report
    verdicts = {row["key"]: row for row in pq.read_table(tmp_path / "out" / "selection.parquet").to_pylist()}
    assert verdicts["107-short"]["keep"] and verdicts["115-nocaption"]["keep"]
    raw = tmp_path / "raw"
    (tmp_path / "raw.yaml").write_text("filters: [caption_rules]\n")
    assert run(["filter", str(pool), str(raw), "-r", str(tmp_path / "raw.yaml"), "--workers", "1"]) == 0
    before = {row["key"]: row for row in pq.read_table(raw / "selection.parquet").to_pylist()}
    assert not before["107-short"]["keep"]
    for found in (before, verdicts):
        found.pop("114-noimage")  # with neither image nor caption, it is told by its place in the shard
    assert {key: row["uid"] for key, row in before.items()} == {key: row["uid"] for key, row in verdicts.items()}
    assert members(tmp_path / "out" / "shards")["107-short.txt"].startswith(b"plain picture")
    assert run(["explain", str(tmp_path / "out"), verdicts["107-short"]["uid"]]) == 0
    assert "plain picture" in capsys.readouterr().out
    assert run(command) == 0 and len(log.read_text().splitlines()) == 36


def test_a_recipe_without_it_hashes_as_before(tmp_path: Path) -> None:
    plain = load_recipe("default")
    facts = plain.as_dict()
    assert facts.keys() == {"name", "features", "filters"}
    assert plain.hash == facts_hash(facts | {"name": "", "features": [feature.folder for feature in plain.features]})
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(tmp_path, tmp_path / "log")))
    first, second = load_recipe(str(file)), load_recipe(str(file), ("recaption.mix.ratio=0.25",))
    assert len({first.hash, second.hash, load_recipe(str(file), ("recaption.seed=1",)).hash}) == 3
    assert first.recaption and second.recaption and second.recaption.mix.ratio == 0.25
    assert isinstance(second.recaption.backend, Parrot)


def test_arms_that_differ_in_their_mix_pay_for_captions_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "curate.curation")
    pool, log = write_pool(tmp_path / "pool", [pair(n) for n in range(24)]), tmp_path / "log"
    task = write_classification_task(tmp_path / "task", [(encoded(photo(900)), 0)], ["a", "b"], ["a photo of {c}"])
    experiment = Experiment.model_validate({
        "pool": str(pool), "tasks": str(task), "mode": "sweep", "recipe": recipe(tmp_path, log),
        "sweep": {"parameter": "recaption.mix.ratio", "values": [0.25, 0.75, 1]}, "controls": ["no filter"],
    })  # fmt: skip
    engine, kept = open_engine("local", 1), {}
    for arm in plan_arms(experiment, [str(task)]):
        decided = decide_arm(arm, open_pool(str(pool)), Folder(str(tmp_path / "out")), engine, lambda _, work: work())
        found = members(Path(decided.folder) / "shards")
        kept[arm.name] = {name for name, data in found.items() if data.startswith(b"plain picture")}
    engine.close()
    assert len(log.read_text().splitlines()) == 24
    assert not kept.pop("no filter")
    some, more, every = kept.values()
    assert some < more < every and len(every) == 24
    decoded = [record.args[-1] for record in caplog.records if "images decoded" in record.msg]  # type: ignore[index]
    assert sum(decoded) == 24 + 1  # the pool's and the task's; images with other captions are not decoded again
