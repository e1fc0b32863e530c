"""Comparisons of arms: what is found, what is not, and what is left undecided."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trainer.compare import Error, compare, error_of, holm, mean_of, seeds_needed


def outcomes(
    accuracy: float, seeds: int = 3, items: int = 2000, spread: float = 0.0, seed: int = 0
) -> dict[str, np.ndarray]:
    """An arm's 0/1 outcomes: items differ in how hard they are, seeds by `spread`."""
    hard = np.random.default_rng(99).random(items)
    means = accuracy + spread * np.random.default_rng(seed).standard_normal((seeds, 1))
    return {"task": (hard < means).astype(np.float32)}


def of_means(*means: float, items: int = 10_000) -> dict[str, np.ndarray]:
    """An arm whose seeds have these accuracies; what is easy for one is easy for all."""
    hard = (np.arange(items) + 0.5) / items
    return {"task": (hard < np.array(means)[:, None]).astype(np.float32)}


def test_a_clear_difference_is_found_and_a_tiny_one_is_no_effect() -> None:
    raw, good, same = outcomes(0.5), outcomes(0.6), outcomes(0.501)
    better, worse, none = compare([(raw, good), (good, raw), (raw, same)])
    assert (better.verdict, worse.verdict, none.verdict) == ("better", "worse", "no effect")
    assert better.difference == pytest.approx(0.1, abs=0.02)
    assert better.low > 0 > worse.high
    assert better.per_task["task"] == (better.difference, better.low, better.high)


def test_seeds_that_differ_widely_leave_it_undecided_and_say_how_many_it_takes() -> None:
    (found,) = compare([(of_means(0.45, 0.50, 0.55), of_means(0.47, 0.52, 0.57))], smallest=0.03)
    assert found.verdict == "undecided"
    by_hand = 2 * 0.05**2 * (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) ** 2 / 0.03**2
    assert found.seeds_needed == pytest.approx(by_hand, abs=2)


def test_one_seed_decides_nothing() -> None:
    (found,) = compare([(outcomes(0.3, seeds=1), outcomes(0.6, seeds=1))])
    assert (found.verdict, found.seeds_needed) == ("undecided", None)


def test_many_arms_are_held_to_more() -> None:
    raw = outcomes(0.5, spread=0.01)
    arms = [outcomes(0.52, spread=0.01, seed=n) for n in range(8)]
    alone = [compare([(raw, arm)])[0] for arm in arms]
    together = compare([(raw, arm) for arm in arms])
    assert all(one.p <= other.p for one, other in zip(alone, together, strict=True))
    assert [one.low for one in alone] == [one.low for one in together]


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_error_is_welchs_where_only_seeds_differ() -> None:
    a = np.array([0.50, 0.54, 0.49])
    b = np.array([0.58, 0.61, 0.60])
    arms = [{"t": np.repeat(of[:, None], 50, axis=1)} for of in (a, b)]
    error, theirs = error_of(*arms), stats.ttest_ind(b, a)
    assert (error.items, error.degrees, error.freedom) == (pytest.approx(0, abs=1e-12), 4, pytest.approx(4))
    assert compare([tuple(arms)])[0].p == pytest.approx(theirs.pvalue, rel=1e-4)  # type: ignore[list-item]


def test_tasks_weigh_the_same() -> None:
    a = {"large": np.zeros((2, 1000)), "small": np.zeros((2, 10))}
    b = {"large": np.zeros((2, 1000)), "small": np.ones((2, 10))}
    assert compare([(a, b)])[0].difference == 0.5
    with pytest.raises(ValueError, match="one set of tasks is needed"):
        compare([(a, {"large": b["large"]})])


def test_the_mean_has_the_interval_of_its_seeds() -> None:
    values = np.array([0.50, 0.54, 0.49])
    mean, low, high = mean_of({"t": np.repeat(values[:, None], 50, axis=1)})
    half = values.std(ddof=1) / math.sqrt(3) * stats.t.ppf(0.975, 2)
    assert (mean, low, high) == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))


def test_enough_items_and_even_seeds_need_few_seeds() -> None:
    a, b = of_means(0.500, 0.502, 0.498), of_means(0.501, 0.503, 0.499)
    few, more = seeds_needed(a, b, 0.05), seeds_needed(a, b, 0.004)
    assert few == 2
    assert more is not None and more > 3
    rng = np.random.default_rng(0)
    small = [{"task": rng.integers(0, 2, (3, 20))} for _ in range(2)]
    assert seeds_needed(*small, 0.01) is None


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.02), (5, 0.0)])
def test_where_nothing_differs_one_experiment_in_twenty_says_so(seeds: int, spread: float) -> None:
    """Five arms that are all alike, in 200 experiments: the share of experiments that find any difference."""
    wrong = 0
    for n in range(200):
        rng = np.random.default_rng(n)
        arms = [{"t": rng.random((seeds, 300)) < 0.5 + spread * rng.standard_normal((seeds, 1))} for _ in range(5)]
        errors = [error_of(arms[0], arm) for arm in arms[1:]]
        means = [float(arm["t"].mean() - arms[0]["t"].mean()) for arm in arms[1:]]
        p = [2 * float(stats.t.sf(abs(d) / e.size, e.freedom)) for d, e in zip(means, errors, strict=True)]
        wrong += min(holm(p)) < 0.05
    assert wrong <= 20


def test_an_error_without_seeds_is_normal() -> None:
    assert Error(0.0, 0.01, 0).half_interval == pytest.approx(1.96 * 0.1, abs=1e-3)
