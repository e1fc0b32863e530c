"""Intervals and paired comparison of accuracies. No claim is made where the data cannot carry one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Verdict = Literal["better", "worse", "undecided"]
DRAWS_AT_ONCE = 1 << 22  # numbers held in memory while resampling


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Bounds, in 0..1, of the true share behind `correct` right out of `n` independent items.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    Raises:
        ValueError: `correct` is not in 0..n, or n is 0.
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"{correct} right out of {n} is no share")
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    share, weight = correct / n, z * z / n
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Comparison:
    """The mean of b - a and its interval; "better" if all of it is above 0, "worse" if all is below."""

    difference: float
    low: float
    high: float
    verdict: Verdict


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, *, seed: int = 0, resamples: int = 10_000, confidence: float = 0.95
) -> Comparison:
    """Is b more accurate than a on the same items? Resamples items (paired) and the seeds of each arm.

    Args:
        a, b: 0/1 outcomes (seeds, items) of two arms; the items must be the same, in the same order. One seed
            may be given as (items,); the interval then knows of no variation between seeds, and speaks of
            these two models only.

    Raises:
        ValueError: the shapes do not fit.
    """
    a, b = np.atleast_2d(np.asarray(a, dtype=np.float32)), np.atleast_2d(np.asarray(b, dtype=np.float32))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or 0 in (*a.shape, *b.shape):
        raise ValueError(f"outcomes must be (seeds, items) over the same items, got {a.shape} and {b.shape}")
    rng, items = np.random.default_rng(seed), a.shape[1]
    # Items with the same outcomes everywhere are exchangeable: drawing how many of each sort is drawing the items.
    sorts, counts = np.unique(np.vstack([a, b]), axis=1, return_counts=True)
    draws = list[np.ndarray]()
    at_once = max(1, DRAWS_AT_ONCE // len(counts))
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        of_a, of_b = (_seed_weights(rng, count, len(arm), len(a) + len(b) - 2) for arm in (a, b))
        differences = np.hstack([-of_a, of_b]) @ sorts  # (count, sorts)
        shares = rng.multinomial(items, counts / items, size=count) / items
        draws.append(np.einsum("ij,ij->i", shares, differences))
    tail = (1 - confidence) / 2
    low, high = (float(bound) for bound in np.quantile(np.concatenate(draws), [tail, 1 - tail]))
    verdict: Verdict = "better" if low > 0 else "worse" if high < 0 else "undecided"
    return Comparison(float(b.mean() - a.mean()), low, high, verdict)


def _seed_weights(rng: np.random.Generator, count: int, seeds: int, freedom: int) -> np.ndarray:
    """float32 (count, seeds): how much each seed weighs in each resample; rows sum to 1.

    Resampling n seeds spreads (n - 1) / n as much as n new seeds would, and its tails are the normal distribution's:
    with the few seeds that an experiment can afford, one in six differences that are none would pass for real. So
    the weights are stretched, by sqrt(n / (n - 1)) and by Student's quantile over the normal one.
    """
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=count) / seeds
    stretch = math.sqrt(seeds / max(1, seeds - 1)) * stats.t.ppf(0.975, max(1, freedom)) / stats.norm.ppf(0.975)
    return (1 / seeds + (weights - 1 / seeds) * stretch).astype(np.float32)
