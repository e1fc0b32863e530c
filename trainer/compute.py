"""The compute multiplier: how many times fewer samples one data set needs to reach the accuracy of another.

Reported for filtered data by DataComp's scaling figures (Gadre et al. 2023, arXiv:2304.14108) and, as "compute
multiplier", by later work on data selection; here with an interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Curve = Mapping[int, tuple[float, float]]
"""Samples seen to the mean accuracy and its standard error."""
DRAWS = 4000


@dataclass(frozen=True)
class Multiplier:
    """`value` times fewer samples; a bound where the curve does not reach so far: see `bounded`."""

    value: float
    low: float
    high: float
    bounded: str  # "": the curves meet; "at least": even the least samples were enough; "at most": none were


def multiplier(raw: Curve, curated: Curve, seed: int = 0) -> Multiplier:
    """How many times fewer samples `curated` needs to reach what `raw` reaches with its most samples.

    Between the measured numbers of samples, accuracy is taken to grow with their logarithm; a curve that falls is
    taken for level. The interval is of draws around each point by its error.

    Raises:
        ValueError: a curve has fewer than two points.
    """
    if min(len(raw), len(curated)) < 2:
        raise ValueError("a curve needs two or more numbers of samples")
    random = np.random.default_rng(seed)
    most = max(raw)
    wanted = raw[most][0] + raw[most][1] * random.standard_normal(DRAWS)
    seen = np.array(sorted(curated), float)
    means, errors = (np.array([curated[int(n)][i] for n in seen]) for i in (0, 1))
    drawn = means + errors * random.standard_normal((DRAWS, len(seen)))
    needed = np.array([_needed(seen, curve, level) for curve, level in zip(drawn, wanted, strict=True)])
    value = most / _needed(seen, means, raw[most][0])
    low, high = np.quantile(most / needed, [0.025, 0.975])
    reached = np.maximum.accumulate(means)
    bounded = "at least" if reached[0] >= raw[most][0] else "at most" if reached[-1] < raw[most][0] else ""
    return Multiplier(float(value), float(low), float(high), bounded)


def _needed(seen: np.ndarray, curve: np.ndarray, level: float) -> float:
    """Samples at which the curve reaches the level; its ends where it always or never does."""
    rising = np.maximum.accumulate(curve)
    if level <= rising[0]:
        return float(seen[0])
    if level > rising[-1]:
        return float(seen[-1])
    after = int(np.searchsorted(rising, level))
    share = (level - rising[after - 1]) / (rising[after] - rising[after - 1])
    return float(np.exp(np.interp(share, (0, 1), np.log(seen[after - 1 : after + 1]))))
