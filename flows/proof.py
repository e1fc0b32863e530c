"""The proof: train the same model on each arm's samples at equal compute, several seeds, and compare."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.compare import compare, mean_of
from trainer.evaluate import evaluate
from trainer.run import TrainResult
from trainer.scales import Scale
from trainer.tasks.contract import TaskResult
from trainer.train import train

EVIDENCE = "evidence.json"
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Arm:
    """A name and the folder of shards that it trains on."""

    name: str
    shards: str


def prove(
    arms: Sequence[Arm],
    task: str | Path,
    out: Path,
    scale: Scale,
    seeds: Sequence[int],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Train and evaluate every arm with every seed; what is done already under `out` is not done again.

    Every arm sees `scale.samples_seen` samples, however many it has. Each arm after the first is compared with
    the first by a paired bootstrap over test items and seeds.

    Returns:
        The evidence as the report reads it: accuracies 0 to 1, intervals of 95 %.
    """
    trained: dict[str, list[TrainResult]] = {arm.name: [] for arm in arms}
    results: dict[str, list[TaskResult]] = {arm.name: [] for arm in arms}
    for seed in seeds:  # seed by seed, so that what an interrupted run has is a fair comparison too
        for arm in arms:
            folder = out / f"{arm.name}-{seed}"
            trained[arm.name].append(train(arm.shards, folder, scale=scale, seed=seed))
            (result,) = evaluate(folder, [task], output=folder / "evaluation.json")
            results[arm.name].append(result)
            log.info("%s, seed %d: accuracy %.3f", arm.name, seed, result.value)
    return {
        "task": results[arms[0].name][0].task,
        "chance": None,
        "arms": [_arm(arm.name, trained[arm.name], results[arm.name], seeds) for arm in arms],
        "comparisons": _comparisons(results),
        "notes": list(notes),
    }


def _arm(
    name: str, trained: Sequence[TrainResult], results: Sequence[TaskResult], seeds: Sequence[int]
) -> dict[str, Any]:
    """An arm's mean accuracy; its interval joins what other seeds and what other test items would change."""
    mean, low, high = mean_of(_outcomes(results))
    return {
        "name": name,
        "accuracy": mean,
        "interval": [low, high],
        "samples": trained[0].unique_samples,
        "samples_seen": trained[0].samples_seen,
        "repeats": trained[0].repeats,
        "seeds": list(seeds),
        "per_seed": [result.value for result in results],
    }


def _comparisons(results: Mapping[str, Sequence[TaskResult]]) -> list[dict[str, Any]]:
    """Each arm after the first against the first."""
    first, *others = results
    found = compare([(_outcomes(results[first]), _outcomes(results[name])) for name in others])
    return [
        {"a": first, "b": name, "difference": one.difference, "interval": [one.low, one.high], "verdict": one.verdict}
        for name, one in zip(others, found, strict=True)
    ]


def _outcomes(results: Sequence[TaskResult]) -> dict[str, np.ndarray]:
    return {results[0].task: np.stack([result.outcomes for result in results])}
