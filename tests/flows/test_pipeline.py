"""The whole as one flow, really run: pages over HTTP to a verdict, then the trend of accuracies over runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from curate.demo.server import serve
from curate.metrics.ledger import FILE
from tests.flows.prefect_server import PrefectServer
from tests.flows.test_ablation import NAMES, SCALE, picture
from trainer.tasks.write import write_classification_task

RUN = """
import json, sys
from flows.pipeline import pipeline
from flows.ablation import ablation
asked = json.load(sys.stdin)
found = pipeline(**asked)
# The same experiment by itself, on the pool of that night, is the trend's second row.
ablation(f"{asked['folder']}/experiment.yaml", "proof", workers=1, history=asked["history"])
print(json.dumps(found))
"""


def site(folder: Path) -> Path:
    """A page with a picture of each colour, many times; every other caption is wordy."""
    folder.mkdir()
    tags = []
    for number in range(48):
        (folder / f"{number}.jpg").write_bytes(picture(number % 4, number))
        said = f"a photo of something {NAMES[number % 4]}"
        tags.append(f'<img src="{number}.jpg" alt="{said}{" and of much more than that" * (number % 2)}">')
    (folder / "index.html").write_text(f"<html><body>{''.join(tags)}</body></html>")
    return folder


def experiment(folder: Path) -> Path:
    """Two arms, one seed, and a model that sees 64 samples: what it learns does not matter here."""
    task = [(picture(n % 4, 10_000 + n), n % 4) for n in range(16)]
    asked = {
        "name": "colours", "pool": "none-yet", "scale": SCALE | {"samples_seen": 64}, "seeds": 1,
        "tasks": str(write_classification_task(folder / "which-colour", task, NAMES, ["a photo of something {c}"])),
        "recipe": {"filters": [{"caption_rules": {"max_words": 6}}]},
        "arms": {"short": {}}, "controls": ["no filter"],
    }  # fmt: skip
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(asked))
    return file


@pytest.mark.slow
def test_pages_become_evidence_and_the_next_run_of_the_experiment_is_a_second_row(
    tmp_path: Path, server: PrefectServer
) -> None:
    environment = server.environment | {"CURATE_METRICS": str(tmp_path / "metrics"), "OMP_NUM_THREADS": "1"}
    file, history, night = experiment(tmp_path), str(tmp_path / "history"), tmp_path / "night"
    (tmp_path / "recipe.yaml").write_text("name: nightly\nfilters: [{image_size: {min_side: 16}}, exact_duplicates]\n")
    ask: dict[str, Any] = {"check": False, "capture_output": True, "text": True, "env": environment, "cwd": tmp_path}
    with serve(site(tmp_path / "web"), 0) as origin:
        parameters = {
            "sources": [f"{origin}/index.html"], "folder": str(night), "recipe": "recipe.yaml",
            "experiment": str(file), "history": history, "allow_private": True, "workers": 1,
            "downloading": {"processes": 1, "retries": 0},
        }  # fmt: skip
        done = subprocess.run([sys.executable, "-c", RUN], input=json.dumps(parameters), **ask)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["acquire"]["download"]["downloaded"] == 48
    assert found["manifest"]["selection"] == found["manifest"]["selection"] | {"rows": 48, "kept": 48}
    first = json.loads((night / "ablation" / "ablation.json").read_text())
    assert {arm["name"]: arm["samples"] for arm in first["arms"]} == {"no filter": 48, "short": 24}
    assert found["ablation"]["verdicts"] == first["verdicts"] and Path(found["ablation"]["report"]).exists()

    trends = [one for one in server.ask("/artifacts/filter", {}) if one["key"] == "accuracy-trend"]
    rows = json.loads(max(trends, key=lambda one: one["created"])["data"])
    assert [row["out"] for row in rows] == [str(night / "ablation"), "proof"]
    reached = {arm["name"]: f"{arm['value']:.1%}" for arm in first["arms"]}
    assert {name: rows[0][name] for name in reached} == reached
    kinds = {one["key"] for one in server.ask("/artifacts/filter", {})}
    assert {"acquired", "summary", "funnel", "report", "drift", "ablation-verdicts", "ablation-arms"} <= kinds

    counted = {}
    for family in text_string_to_metric_families((tmp_path / "metrics" / FILE).read_text()):
        for sample in family.samples:
            counted[sample.name, *sorted(sample.labels.items())] = sample.value
    runs = {
        key[2][1]: value for key, value in counted.items() if key[0] == "curate_runs_total" and key[3][1] == "success"
    }
    assert runs == {"pipeline": 1, "ablation": 1}  # those that the pipeline called are part of it
    assert counted["curate_downloads_total", ("outcome", "downloaded")] == 48
    assert counted["curate_samples_kept_total", ("recipe", "nightly")] == 48
    assert counted["curate_training_samples_total", ("device", "cpu")] == 4 * 64
    assert counted["curate_accuracy_ratio", ("arm", "short"), ("experiment", "colours")] == pytest.approx(
        json.loads((tmp_path / "proof" / "ablation.json").read_text())["arms"][1]["value"]
    )
