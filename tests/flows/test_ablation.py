"""An ablation on a pool whose truth is known: wrong captions are long, so one filter helps and one does nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from curate.engines import open_engine
from curate.errors import RequestError
from flows.ablation import ablate
from flows.arms import plan_arms
from flows.experiment import Experiment, load_experiment
from tests.conftest import Pair, encoded, write_pool
from trainer.tasks.write import write_classification_task

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 230), "yellow": (230, 220, 30)}
NAMES = list(COLOURS)
SCALE: dict[str, Any] = {
    "name": "tiny", "samples_seen": 2560, "batch_size": 32, "image_size": 32, "lr": 3e-3, "warmup": 5,
    "precision": "fp32",
    "model": {
        "embed_dim": 16, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        "custom_text": True,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def picture(colour: int, seed: int) -> bytes:
    pixels = np.array(COLOURS[NAMES[colour]]) + np.random.default_rng(seed).normal(0, 12, (40, 40, 3))
    return encoded(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))


@pytest.fixture
def request_of(tmp_path: Path) -> dict[str, Any]:
    """Three of five of the pool's captions are wrong and wordy; three of its images are the task's."""
    pairs = []
    for n in range(240):
        colour, wrong = n % 4, n % 5 < 3
        said = NAMES[(colour + 1) % 4] if wrong else NAMES[colour]
        image = picture(colour, 10_000 + n) if n < 3 else picture(colour, n)
        text = f"click here to see much more of this {said} thing" if wrong else f"a photo of something {said}"
        pairs.append(Pair(f"{n:06d}", image, text))
    task = [(picture(n % 4, 10_000 + n), n % 4) for n in range(120)]
    return {
        "name": "colours",
        "pool": str(write_pool(tmp_path / "pool", pairs, per_shard=80)),
        "tasks": str(write_classification_task(tmp_path / "which-colour", task, NAMES, ["a photo of something {c}"])),
        "recipe": {"filters": [{"caption_rules": {"max_words": 8}}, {"random_subset": {"keep_fraction": 0.8}}]},
        "scale": SCALE,
        "smallest_effect": 0.2,
    }


def run(request: dict[str, Any], out: Path, *devices: str) -> dict[str, Any]:
    engine = open_engine("local", 1)
    try:
        return ablate(Experiment.model_validate(request), out, engine, devices=devices)
    finally:
        engine.close()


@pytest.mark.slow
def test_leave_one_out_tells_the_filter_that_helps_from_the_one_that_does_not(
    request_of: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run(request_of | {"mode": "leave-one-out"}, out)
    by_filter = {c["filter"]: c for c in result["comparisons"] if c["filter"]}
    assert by_filter["caption_rules"]["verdict"] == "better"
    assert by_filter["caption_rules"]["words"].startswith("keep caption_rules: +")
    low, high = by_filter["random_subset"]["interval"]
    assert low <= 0 <= high
    assert "keep random_subset" not in " ".join(result["verdicts"])
    arms = {arm["name"]: arm for arm in result["arms"]}
    assert list(arms)[:2] == ["recipe", "no filter"]
    assert {arm["samples_seen"] for arm in arms.values()} == {2560}
    assert arms["no filter"]["contaminated"] == 3 and arms["no filter"]["samples"] == 237
    assert arms["recipe"]["repeats"] == pytest.approx(2560 / arms["recipe"]["samples"], abs=1e-3)
    (control,) = (arm for name, arm in arms.items() if name.startswith("random "))
    assert (control["role"], control["samples"]) == ("control", arms["recipe"]["samples"])
    assert result["trained"] == 15

    # The same again trains nothing; what is written says the same.
    again = run(request_of | {"mode": "leave-one-out"}, out)
    assert (again["trained"], again["from_earlier_runs"]) == (0, 15)
    assert [c["difference"] for c in again["comparisons"]] == [c["difference"] for c in result["comparisons"]]
    assert json.loads((out / "ablation.json").read_text())["verdicts"] == result["verdicts"]
    with (out / "comparisons.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["words"] for row in rows] == result["verdicts"]
    page = (out / "report.html").read_text()
    assert "keep caption_rules" in page and "<script" not in page
    for arm in (out / "arms").iterdir():
        selection = pq.read_table(arm / "selection.parquet").to_pylist()
        assert [row["filter"] for row in selection[:3]] == ["decontamination"] * 3

    # Another mode in the same folder trains only what is new, and arms of the same samples share their models.
    more = {"long": {"set": "caption_rules.max_words=9"}, "same": {"without": []}, "twin": {"without": []}}
    found = run(request_of | {"mode": "arms", "arms": more, "seeds": 2}, out)
    arms = {arm["name"]: arm for arm in found["arms"]}
    assert arms["twin"]["same_samples_as"] == "long"
    assert found["trained"] == 0


@pytest.mark.slow
def test_scaling_finds_how_many_times_fewer_samples_are_needed(request_of: dict[str, Any], tmp_path: Path) -> None:
    clean = {"filters": [{"caption_rules": {"max_words": 8}}]}
    asked = request_of | {"mode": "scaling", "samples_seen": [640, 1920], "seeds": 2, "recipe": clean}
    result = run(asked | {"controls": ["no filter"]}, tmp_path / "out")
    (found,) = result["scaling"]
    assert found["arm"] == "recipe" and found["value"] > 1
    assert "times fewer samples" in found["words"]
    assert found["words"].replace("+", "&#43;") in (tmp_path / "out/report.html").read_text()
    assert sorted({arm["samples_seen"] for arm in result["arms"]}) == [640, 1920]

    # Two at a time, each in a process of its own, come to the same.
    both = run(asked | {"controls": ["no filter"]}, tmp_path / "both", "cpu", "cpu")
    assert both["trained"] == 8
    assert [arm["per_seed"] for arm in both["arms"]] == [arm["per_seed"] for arm in result["arms"]]


def names(request: dict[str, Any]) -> list[str]:
    return [arm.name for arm in plan_arms(Experiment.model_validate(request), ["evals"])]


def test_every_mode_has_its_arms(request_of: dict[str, Any]) -> None:
    assert names(request_of | {"mode": "leave-one-out"}) == [
        "recipe", "no filter", "without caption_rules", "without random_subset"
    ]  # fmt: skip
    assert names(request_of | {"mode": "add-one-in", "filters": ["caption_rules"]}) == [
        "no filter", "recipe", "only caption_rules"
    ]  # fmt: skip
    swept = {"parameter": "caption_rules.max_words", "values": [5, 8]}
    assert names(request_of | {"mode": "sweep", "sweep": swept}) == [
        "no filter", "caption_rules.max_words=5", "caption_rules.max_words=8"
    ]  # fmt: skip
    arms = {"default": {"recipe": "default"}, "shorter": {"set": ["caption_rules.max_words=5"]}}
    assert names(request_of | {"arms": arms, "baseline": "shorter"}) == ["shorter", "no filter", "default"]


def test_every_arm_is_cleared_of_the_evaluation_images(request_of: dict[str, Any]) -> None:
    mine = {"filters": [{"decontamination": {"against": "mine", "max_distance": 4}}, "image_size"]}
    arms = {"mine": {"recipe": mine}, "plain": {}}
    for arm in plan_arms(Experiment.model_validate(request_of | {"arms": arms}), ["evals"]):
        first = arm.recipe.filters[0]
        assert first.name == "decontamination"
        assert first.filter.model_dump()["against"] == (["mine", "evals"] if arm.name == "mine" else ["evals"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decontaminate": False}, "decontaminate: evaluation images must be removed from every arm"),
        ({"mode": "arms"}, "mode arms needs `arms`"),
        ({"mode": "scaling"}, "mode scaling needs several numbers"),
        ({"mode": "sweep"}, "mode sweep needs `sweep`"),
        ({"tasks": []}, "tasks: "),
        ({"seeds": [1, 1]}, "seeds: at least one, and none twice"),
        ({"pols": "x"}, "pols: "),
        ({"arms": {"no filter": {}}}, "an arm cannot be called 'no filter'"),
    ],
)
def test_a_wrong_experiment_is_one_line(
    request_of: dict[str, Any], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(request_of | {"arms": {"a": {}}} | changes))
    if changes.get("mode") in ("scaling", "sweep"):
        file.write_text(yaml.safe_dump(request_of | changes))
    if changes == {"mode": "arms"}:
        file.write_text(yaml.safe_dump(request_of))
    with pytest.raises(RequestError) as wrong:
        load_experiment(str(file))
    assert message in str(wrong.value) and "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"a": {"without": "clip_score"}}}, "the recipe has no filter 'clip_score'"),
        ({"arms": {"a": {"set": "image_size.min_side=3"}}}, "the recipe has no filter 'image_size'"),
        ({"arms": {"a b": {}, "a-b": {}}}, "two of them have the same name"),
        ({"arms": {"a": {}}, "baseline": "b"}, "baseline: no arm 'b'"),
        ({"mode": "leave-one-out", "filters": ["language"]}, "filters: the recipe has no 'language'"),
    ],
)
def test_arms_that_cannot_be(request_of: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        names(request_of | changes)
