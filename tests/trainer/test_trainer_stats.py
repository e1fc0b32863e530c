import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.stats import paired_bootstrap, wilson_interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [  # method 3 of Newcombe, "Two-sided confidence intervals for the single proportion", Stat. Med. 1998, table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_agrees_with_the_literature(correct: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_mirrors(case: tuple[int, int]) -> None:
    correct, n = case
    low, high = wilson_interval(correct, n)
    assert 0 <= low <= correct / n + 1e-12
    assert correct / n - 1e-12 <= high <= 1
    assert wilson_interval(n - correct, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize(("correct", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_interval_refuses_what_is_no_share(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        wilson_interval(correct, n)


def test_paired_bootstrap_matches_the_normal_interval_of_paired_differences() -> None:
    rng = np.random.default_rng(1)
    a = (rng.random(4000) < 0.6).astype(int)
    b = np.where(rng.random(4000) < 0.1, 1 - a, a)
    outcome = paired_bootstrap(a, b, resamples=4000)
    half = 1.96 * (b - a).std() / math.sqrt(4000)
    assert outcome.difference == pytest.approx((b - a).mean(), abs=1e-6)
    assert outcome.low == pytest.approx((b - a).mean() - half, abs=5e-4)
    assert outcome.high == pytest.approx((b - a).mean() + half, abs=5e-4)


def test_paired_bootstrap_verdicts() -> None:
    rng = np.random.default_rng(2)
    a = (rng.random((3, 2000)) < 0.5).astype(int)
    better = np.maximum(a, rng.random((3, 2000)) < 0.2)
    assert paired_bootstrap(a, better).verdict == "better"
    assert paired_bootstrap(better, a).verdict == "worse"
    assert paired_bootstrap(a, a).verdict == "undecided"
    few = slice(0, 8)
    assert paired_bootstrap(a[:1, few], better[:1, few]).verdict == "undecided"


def test_paired_bootstrap_knows_that_seeds_vary() -> None:
    # The same gain, once the same in both seeds, once all in one seed: only the first can be relied on.
    a = np.zeros((2, 1000), dtype=int)
    steady, lucky = a.copy(), a.copy()
    steady[:, :100] = 1
    lucky[0, :200] = 1
    assert paired_bootstrap(a, steady).verdict == "better"
    assert paired_bootstrap(a, lucky).verdict == "undecided"
    assert paired_bootstrap(a, steady).difference == pytest.approx(paired_bootstrap(a, lucky).difference)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_paired_bootstrap_seldom_takes_the_luck_of_seeds_for_a_difference(seeds: int) -> None:
    rng = np.random.default_rng(5)

    def arm() -> np.ndarray:  # every seed shifts the accuracy by 5 points up or down
        return difficulty + rng.normal(0, 0.05, (seeds, 1)) < 0.6

    false = 0
    for trial in range(300):
        difficulty = rng.random(500)
        false += paired_bootstrap(arm(), arm(), seed=trial, resamples=500).verdict != "undecided"
    assert false / 300 < 0.09


def test_paired_bootstrap_is_repeatable_and_antisymmetric() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 2, (2, 500)), rng.integers(0, 2, (3, 500))
    assert paired_bootstrap(a, b, seed=4) == paired_bootstrap(a, b, seed=4)
    forth, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert forth.difference == pytest.approx(-back.difference)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=0.01)


def test_paired_bootstrap_refuses_different_items() -> None:
    with pytest.raises(ValueError, match="same items"):
        paired_bootstrap(np.zeros((1, 5)), np.zeros((1, 6)))
