"""The proof: train the same model on each arm's samples at equal compute, several seeds, and compare."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.evaluate import evaluate
from trainer.run import TrainResult
from trainer.scales import Scale
from trainer.stats import mean_interval, paired_bootstrap, wilson_interval
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
        "comparisons": [_comparison(arms[0].name, arm.name, results) for arm in arms[1:]],
        "notes": list(notes),
    }


def _arm(
    name: str, trained: Sequence[TrainResult], results: Sequence[TaskResult], seeds: Sequence[int]
) -> dict[str, Any]:
    """An arm's mean accuracy; its interval joins what other seeds and what other test items would change."""
    per_seed = [result.value for result in results]
    mean = sum(per_seed) / len(per_seed)
    low, high = wilson_interval(round(mean * results[0].items), results[0].items)
    if len(per_seed) > 1:
        _, low_seed, high_seed = mean_interval(per_seed)
        low, high = mean - math.hypot(mean - low, mean - low_seed), mean + math.hypot(high - mean, high_seed - mean)
    return {
        "name": name,
        "accuracy": mean,
        "interval": [max(low, 0.0), min(high, 1.0)],
        "samples": trained[0].unique_samples,
        "samples_seen": trained[0].samples_seen,
        "repeats": trained[0].repeats,
        "seeds": list(seeds),
        "per_seed": per_seed,
    }


def _comparison(a: str, b: str, results: Mapping[str, Sequence[TaskResult]]) -> dict[str, Any]:
    outcomes = [np.stack([result.outcomes for result in results[name]]) for name in (a, b)]
    found = paired_bootstrap(outcomes[0], outcomes[1])
    return {
        "a": a,
        "b": b,
        "difference": found.difference,
        "interval": [found.low, found.high],
        "verdict": found.verdict,
    }
