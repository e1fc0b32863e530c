from __future__ import annotations

import pytest
from pydantic import ValidationError

from filters.score import Score
from tests.filters.conftest import Judge

ROWS = [{"uid": u, "sharpness": s} for u, s in (("a", 10.0), ("b", 30.0), ("c", 20.0), ("d", 20.0), ("e", None))]


def test_a_minimum_and_a_maximum(judge: Judge) -> None:
    assert judge(Score(column="sharpness", min=20), ROWS) == {
        "a": ("sharpness 10.000 < 20.000", None),
        "e": ("no sharpness", None),
    }
    assert judge(Score(column="sharpness", max=20), ROWS) == {
        "b": ("sharpness 30.000 > 20.000", None),
        "e": ("no sharpness", None),
    }


def test_the_best_fraction_from_either_end(judge: Judge) -> None:
    assert set(judge(Score(column="sharpness", keep_fraction=0.4), ROWS)) == {"a", "d", "e"}
    lowest = judge(Score(column="sharpness", keep_fraction=0.4, prefer="low"), ROWS)
    assert set(lowest) == {"b", "d", "e"}
    assert lowest["b"][0] == "sharpness 30.000 > 20.000, not in the bottom 0.4"


def test_samples_without_a_score_may_stay(judge: Judge) -> None:
    assert set(judge(Score(column="sharpness", keep_fraction=0.5, missing="keep"), ROWS)) == {"a", "d"}


@pytest.mark.parametrize("bounds", [{}, {"min": 1, "max": 2}, {"min": 1, "keep_fraction": 0.5}])
def test_exactly_one_bound(bounds: dict) -> None:
    with pytest.raises(ValidationError, match="exactly one of min, max and keep_fraction"):
        Score(column="sharpness", **bounds)
