"""How many samples to keep of each cluster."""

from __future__ import annotations

import numpy as np


def balanced(sizes: np.ndarray, keep: int) -> np.ndarray:
    """How many to keep of each cluster: all of the small ones, and of the large ones as evenly as goes.

    >>> balanced(np.array([10, 2, 5]), 10).tolist()
    [4, 2, 4]
    """
    if len(sizes) == 0:
        return np.zeros(0, np.int64)
    ascending = np.sort(sizes)
    cap = np.searchsorted(_kept_at(ascending, np.arange(ascending[-1] + 1)), keep, "right") - 1
    quota = np.minimum(sizes, cap)
    short = keep - int(quota.sum())
    more = np.flatnonzero(sizes > cap)[:short]
    quota[more] += 1
    return quota


def _kept_at(ascending: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """Samples kept under each cap: cluster sizes sorted (k,), caps (c,) to counts (c,)."""
    below = np.searchsorted(ascending, caps, "right")
    sums = np.concatenate([[0], np.cumsum(ascending)])
    return sums[below] + caps * (len(ascending) - below)


def by_density(
    sizes: np.ndarray, complexity: np.ndarray, keep: int, temperature: float, balance: float = 0.0
) -> np.ndarray:
    """How many to keep of each cluster by its complexity (Abbas et al. 2024, arXiv:2401.04578, section 3.2).

    The wished-for counts are keep x softmax(complexity / temperature). The answer is the closest to them in squares
    that adds up to `keep`, with at most its size and at least min(size - 1, max(1, int(balance x keep / clusters)))
    of each cluster: a quadratic program whose solution is one shift for all clusters, clipped to their bounds.

    >>> by_density(np.array([50, 50, 10]), np.array([0.1, 0.3, 0.9]), 60, temperature=0.5).tolist()
    [21, 29, 10]
    """
    if len(sizes) == 0:
        return np.zeros(0, np.int64)
    weight = np.exp((complexity - complexity.max()) / temperature)
    wish = keep * weight / weight.sum()
    least = np.minimum(sizes - 1, max(1, int(keep / len(sizes) * balance)))
    if least.sum() > keep:  # no room for a minimum each
        least = np.zeros_like(sizes)
    low, high = float((least - wish).min()), float((sizes - wish).max())
    for _ in range(200):
        middle = (low + high) / 2
        if np.clip(wish + middle, least, sizes).sum() < keep:
            low = middle
        else:
            high = middle
    real = np.clip(wish + high, least, sizes)
    quota = np.floor(real + 1e-9).astype(np.int64)
    rest = np.lexsort((np.arange(len(sizes)), quota - real))  # the largest remainders first
    rest = rest[quota[rest] < sizes[rest]]
    quota[rest[: keep - int(quota.sum())]] += 1
    return quota
