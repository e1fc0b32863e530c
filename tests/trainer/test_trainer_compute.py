"""Compute multipliers of curves whose answer is known."""

from __future__ import annotations

import pytest

from trainer.compute import multiplier

SEEN = (1000, 2000, 4000, 8000)


def curve(*means: float, error: float = 0.0) -> dict[int, tuple[float, float]]:
    return {seen: (mean, error) for seen, mean in zip(SEEN, means, strict=True)}


def test_a_quarter_of_the_samples() -> None:
    found = multiplier(curve(0.1, 0.2, 0.3, 0.4), curve(0.3, 0.4, 0.5, 0.6))
    assert (found.value, found.low, found.high, found.bounded) == (
        pytest.approx(4),
        pytest.approx(4),
        pytest.approx(4),
        "",
    )


def test_between_two_points_accuracy_grows_with_the_logarithm() -> None:
    assert multiplier(curve(0, 0, 0, 0.35), curve(0.2, 0.3, 0.4, 0.5)).value == pytest.approx(8000 / 2000 / 2**0.5)


def test_the_same_curve_is_once() -> None:
    same = curve(0.1, 0.2, 0.3, 0.4, error=0.02)
    found = multiplier(same, same)
    assert found.value == pytest.approx(1)
    assert found.low <= 1 <= found.high


def test_beyond_the_curve_only_a_bound_is_known() -> None:
    assert multiplier(curve(0.1, 0.2, 0.3, 0.4), curve(0.5, 0.6, 0.7, 0.8)).bounded == "at least"
    none = multiplier(curve(0.1, 0.2, 0.3, 0.4), curve(0.1, 0.1, 0.2, 0.1))
    assert (none.bounded, none.value) == ("at most", 1)


def test_a_curve_needs_two_points() -> None:
    with pytest.raises(ValueError, match="two or more"):
        multiplier({1000: (0.1, 0)}, curve(0.1, 0.2, 0.3, 0.4))
