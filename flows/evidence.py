"""What an experiment found: every arm with its interval, every comparison with its verdict in plain words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flows.arms import Arm, random_control
from flows.experiment import BASE, NO_FILTER, Experiment
from flows.training import Trained
from trainer.compare import Compared, Outcomes, compare, mean_of
from trainer.compute import multiplier

Found = Mapping[tuple[str, int], Sequence[Trained]]
"""By arm and samples seen: a model per seed."""


@dataclasses.dataclass(frozen=True)
class Decided:
    """An arm and the samples it came to."""

    arm: Arm
    folder: str
    kept: int
    content: str
    contaminated: int
    """Samples dropped because their image is one of a task's."""


def outcomes_of(trained: Sequence[Trained]) -> Outcomes:
    """Per task, the items' scores: (seeds, items)."""
    return {task: np.stack([t.evaluation[task].outcomes for t in trained]) for task in trained[0].evaluation}


def describe(experiment: Experiment, arms: Sequence[Decided], found: Found, budgets: Sequence[int]) -> dict[str, Any]:
    """The evidence as plain data, as `ablation.json` has it; shares are 0 to 1, intervals of 95 %."""
    most = max(budgets)
    pairs = compared_arms(experiment, arms)
    outcomes = {decided.arm.name: outcomes_of(found[decided.arm.name, most]) for decided in arms}
    results = compare([(outcomes[a], outcomes[b]) for a, b, _ in pairs], experiment.smallest_effect)
    content = {decided.arm.name: decided.content for decided in arms}
    comparisons = [
        _comparison(a, b, filter, result, content[a] == content[b], experiment)
        for (a, b, filter), result in zip(pairs, results, strict=True)
    ]
    comparisons.sort(
        key=lambda one: (one["filter"] is None, -one["difference"])
    )  # filters first, the best of them first
    return {
        "tasks": {task: one.metric for task, one in found[arms[0].arm.name, most][0].evaluation.items()},
        "baseline": experiment.compared_with,
        "arms": [_arm(decided, budget, found, arms) for budget in budgets for decided in arms],
        "comparisons": comparisons,
        "scaling": _scaling(experiment, arms, found, budgets),
        "verdicts": [c["words"] for c in comparisons],
    }


def compared_arms(experiment: Experiment, arms: Sequence[Decided]) -> list[tuple[str, str, str | None]]:
    """Which arms are compared, (a, b, the filter it is about): b is the one with what is being tried."""
    names = [decided.arm.name for decided in arms]
    randoms = {d.arm.name: d.kept for d in arms if d.arm.name.startswith("random ")}
    pairs: list[tuple[str, str, str | None]] = []
    for decided in arms:
        arm = decided.arm
        if arm.filter and experiment.mode == "leave-one-out":
            pairs.append((arm.name, BASE, arm.filter))
        elif arm.role == "arm" and arm.name != experiment.compared_with:
            pairs.append((experiment.compared_with, arm.name, arm.filter))
        elif arm.name == BASE and NO_FILTER in names:
            pairs.append((NO_FILTER, BASE, None))
        if arm.role == "arm" and (control := random_control(decided.kept, randoms)) and _held(experiment, arm):
            pairs.append((control, arm.name, None))
    return pairs


def _held(experiment: Experiment, arm: Arm) -> bool:
    """Whether the arm is held against a random subset too: of leave-one-out only the whole recipe is."""
    return experiment.mode != "leave-one-out" or arm.name == BASE


def _arm(decided: Decided, budget: int, found: Found, arms: Sequence[Decided]) -> dict[str, Any]:
    trained = found[decided.arm.name, budget]
    outcomes = outcomes_of(trained)
    mean, low, high = mean_of(outcomes)
    first = trained[0].result
    same = next((d.arm.name for d in arms if d.content == decided.content), decided.arm.name)
    return {
        "name": decided.arm.name,
        "role": decided.arm.role,
        "filter": decided.arm.filter,
        "value": mean,
        "interval": [low, high] if len(trained) > 1 else None,
        "per_seed": [float(np.mean([o[n].mean() for o in outcomes.values()])) for n in range(len(trained))],
        "tasks": {task: _task(scores, trained, task) for task, scores in outcomes.items()},
        "samples": decided.kept,
        "contaminated": decided.contaminated,
        "samples_seen": first.samples_seen,
        "repeats": first.repeats,
        "seconds": round(sum(t.result.seconds for t in trained), 1),
        "dataset": decided.folder,
        "same_samples_as": same if same != decided.arm.name else None,
    }


def _task(scores: np.ndarray, trained: Sequence[Trained], task: str) -> dict[str, Any]:
    mean, low, high = mean_of({task: scores})
    metrics = [t.evaluation[task].metrics for t in trained]
    return {
        "value": mean,
        "interval": [low, high] if len(trained) > 1 else None,
        "metrics": {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]},
    }


def _comparison(
    a: str, b: str, filter: str | None, found: Compared, same: bool, experiment: Experiment
) -> dict[str, Any]:
    verdict = "same samples" if same else found.verdict
    return {
        "a": a,
        "b": b,
        "filter": filter,
        "difference": 0.0 if same else found.difference,
        "interval": [0.0, 0.0] if same else [found.low, found.high],
        "p": 1.0 if same else found.p,
        "verdict": verdict,
        "seeds_needed": found.seeds_needed,
        "tasks": {task: {"difference": d, "interval": [low, high]} for task, (d, low, high) in found.per_task.items()},
        "words": words(a, b, filter, found, verdict, experiment),
    }


def words(a: str, b: str, filter: str | None, found: Compared, verdict: str, experiment: Experiment) -> str:
    """A comparison as a sentence that says what to do."""
    span = f"{_points(found.difference)} points [{_points(found.low)}, {_points(found.high)}]"
    smallest = f"{100 * experiment.smallest_effect:g} point{'s' * (experiment.smallest_effect != 0.01)}"
    if verdict == "same samples":
        return f"drop {filter}: it changes nothing" if filter else f"{b}: the same samples as {a}"
    if verdict == "undecided":
        seeds = len(experiment.seed_numbers)
        enough = f"{found.seeds_needed} seeds" if found.seeds_needed else "more test items, or over 100 seeds,"
        more = "one seed cannot tell" if seeds < 2 else f"{enough} would show {smallest}, and there were {seeds}"
        return f"undecided on {filter or f'{b} against {a}'}: {span}; {more}"
    if filter:
        if verdict == "no effect":
            return f"drop {filter}: no effect of {smallest} or more, {span}"
        return f"{'keep' if verdict == 'better' else 'drop'} {filter}: {span}"
    if verdict == "no effect":
        return f"{b}: no effect of {smallest} or more against {a}, {span}"
    return f"{b} is {verdict} than {a}: {span}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}" if math.isfinite(share) else "?"


def _scaling(
    experiment: Experiment, arms: Sequence[Decided], found: Found, budgets: Sequence[int]
) -> list[dict[str, Any]]:
    """How many times fewer samples each arm needs to reach the baseline's best."""
    if experiment.mode != "scaling":
        return []
    curves = {d.arm.name: {n: _point(found[d.arm.name, n]) for n in budgets} for d in arms}
    raw = curves[experiment.compared_with]
    out = []
    for name, curve in curves.items():
        if name != experiment.compared_with:
            got = multiplier(raw, curve)
            sure = f" [{got.low:.1f}, {got.high:.1f}]" if not got.bounded else ""
            said = f"{name} needs {got.bounded + ' ' if got.bounded else ''}{got.value:.1f} times fewer samples{sure}"
            said += f" to reach what {experiment.compared_with} reaches with {max(budgets):,}"
            out.append({"arm": name, **dataclasses.asdict(got), "words": said})
    return out


def _point(trained: Sequence[Trained]) -> tuple[float, float]:
    """An arm's mean and standard error at one number of samples seen."""
    mean, low, high = mean_of(outcomes_of(trained))
    return mean, (high - low) / 2 / 1.96
