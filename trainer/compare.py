"""Two arms compared on the same test items: how far apart, how surely, and how many seeds it would take to know.

What differs between two trainings of the same arm (the seed) and what other test items would have shown are two sources
of error, and both count. Several arms at once get Holm's correction, so that one in twenty *experiments*, not one in
twenty arms, finds what is not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from trainer.stats import paired_bootstrap

Outcomes = Mapping[str, np.ndarray]
"""Per task, the items' scores: float (seeds, items), the same items in the same order for every arm."""
Verdict = Literal["better", "worse", "no effect", "undecided"]
POWER = 0.8
MOST_SEEDS = 100


@dataclass(frozen=True)
class Error:
    """Where the error of a mean or of a difference comes from, as variances."""

    seeds: float
    items: float
    degrees: int  # of freedom of `seeds`: seeds in all, less one per arm; 0 where nothing says how seeds differ

    @property
    def size(self) -> float:
        """The standard error."""
        return math.sqrt(self.seeds + self.items)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of `size` (Satterthwaite 1946): few seeds make it a poor estimate."""
        if self.seeds == 0:
            return math.inf
        return (self.seeds + self.items) ** 2 / (self.seeds**2 / max(1, self.degrees))

    @property
    def half_interval(self) -> float:
        """How far the 95 % interval reaches to either side."""
        return self.size * float(stats.t.ppf(0.975, self.freedom))


@dataclass(frozen=True)
class Compared:
    """The mean of b - a over the tasks.

    `low` and `high` are the 95 % interval of this comparison alone; `p` is corrected for all the comparisons made
    together, and the verdict goes by it. "no effect" means: none that matters, larger than `smallest`.
    """

    difference: float
    low: float
    high: float
    p: float
    verdict: Verdict
    seeds_needed: int | None  # per arm, to see an effect of `smallest`; None if no number of seeds would do
    per_task: dict[str, tuple[float, float, float]]  # difference and its interval, uncorrected


def compare(pairs: Sequence[tuple[Outcomes, Outcomes]], smallest: float = 0.01, seed: int = 0) -> list[Compared]:
    """Compare b with a for each pair (a, b); the pairs are corrected for being many.

    Args:
        smallest: the smallest difference that matters, as a share; what is surely smaller is "no effect".

    Raises:
        ValueError: two arms were not evaluated on the same tasks and items.
    """
    errors = [error_of(a, b) for a, b in pairs]
    found = [_alone(a, b, error, seed) for (a, b), error in zip(pairs, errors, strict=True)]
    corrected = holm([one.p for one in found])
    level = 0.05 / max(1, len(pairs))
    return [
        replace(one, p=p, verdict=_verdict(one, p, smallest, error), seeds_needed=seeds_needed(a, b, smallest, level))
        for one, p, error, (a, b) in zip(found, corrected, errors, pairs, strict=True)
    ]


def mean_of(arm: Outcomes) -> tuple[float, float, float]:
    """An arm's mean over tasks, items and seeds, with its 95 % interval: what other seeds and items would change."""
    per_seed = _per_seed(arm)
    error = Error(_variance(per_seed) / len(per_seed), _items_variance(arm), len(per_seed) - 1)
    mean = float(per_seed.mean())
    low, high = mean - error.half_interval, mean + error.half_interval
    if all(scores.min() >= 0 and scores.max() <= 1 for scores in arm.values()):
        low, high = max(low, 0.0), min(high, 1.0)  # of shares
    return mean, low, high


def error_of(a: Outcomes, b: Outcomes) -> Error:
    """The error of the difference of two arms, averaged over their tasks."""
    if not a or a.keys() != b.keys():
        raise ValueError(f"the arms were evaluated on {sorted(a)} and on {sorted(b)}; one set of tasks is needed")
    differences = {task: b[task].mean(axis=0, keepdims=True) - a[task].mean(axis=0, keepdims=True) for task in a}
    seeds = [_per_seed(arm) for arm in (a, b)]
    return Error(
        sum(_variance(of) / len(of) for of in seeds), _items_variance(differences), sum(len(of) - 1 for of in seeds)
    )


def holm(p: Sequence[float]) -> list[float]:
    """P values corrected for being many, in the same order (S. Holm, Scandinavian Journal of Statistics, 1979)."""
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate([p[place] * (len(p) - rank) for rank, place in enumerate(order)])
    out = np.empty(len(p))
    out[order] = np.minimum(raised, 1.0)
    return out.tolist()


def seeds_needed(a: Outcomes, b: Outcomes, effect: float, level: float = 0.05) -> int | None:
    """Seeds per arm with which a difference of `effect` would be found in four of five experiments, at most 100.

    None if more would be needed, or if a single seed does not say how seeds differ.
    """
    known = error_of(a, b)
    if known.degrees == 0:
        return None
    one = sum(_variance(_per_seed(arm)) for arm in (a, b))
    for seeds in range(2, MOST_SEEDS + 1):
        planned = Error(one / seeds, known.items, 2 * seeds - 2)
        if planned.size * float(stats.t.ppf(1 - level / 2, planned.freedom) + stats.norm.ppf(POWER)) <= effect:
            return seeds
    return None


def _per_seed(arm: Outcomes) -> np.ndarray:
    """Each seed's mean over the tasks: (seeds,)."""
    return np.mean([scores.mean(axis=1) for scores in arm.values()], axis=0)


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _items_variance(arm: Outcomes) -> float:
    """The variance of the mean over the tasks that comes from which items they have."""
    return sum(_variance(scores.mean(axis=0)) / scores.shape[1] for scores in arm.values()) / len(arm) ** 2


def _alone(a: Outcomes, b: Outcomes, error: Error, seed: int) -> Compared:
    per_task = {}
    for task in a:
        found = paired_bootstrap(a[task], b[task], seed=seed)
        per_task[task] = (found.difference, found.low, found.high)
    if len(per_task) == 1:
        ((difference, low, high),) = per_task.values()
    else:
        difference = float(np.mean([found[0] for found in per_task.values()]))
        low, high = difference - error.half_interval, difference + error.half_interval
    p = 2 * float(stats.t.sf(abs(difference) / error.size, error.freedom)) if error.size else float(difference == 0)
    return Compared(difference, low, high, p, "undecided", None, per_task)


def _verdict(found: Compared, p: float, smallest: float, error: Error) -> Verdict:
    if error.degrees == 0:
        return "undecided"
    if p < 0.05 and not found.low <= 0 <= found.high:
        return "better" if found.difference > 0 else "worse"
    if -smallest < found.low and found.high < smallest:
        return "no effect"
    return "undecided"
