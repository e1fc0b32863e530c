from __future__ import annotations

import pytest
from pydantic import ValidationError

from filters.clip_score import ClipScore
from tests.filters.conftest import Judge

ROWS = [{"uid": u, "clip_score": s} for u, s in (("a", 0.1), ("b", 0.3), ("c", 0.2), ("d", 0.2), ("e", None))]


def test_a_minimum(judge: Judge) -> None:
    assert judge(ClipScore(min=0.2), ROWS) == {"a": ("clip_score 0.100 < 0.200", None), "e": ("no clip_score", None)}


def test_a_fraction_keeps_that_many_and_breaks_ties_by_uid(judge: Judge) -> None:
    dropped = judge(ClipScore(keep_fraction=0.4), ROWS)
    assert set(dropped) == {"a", "d", "e"}
    assert dropped["a"][0] == "clip_score 0.100 < 0.200, not in the top 0.4"
    assert judge(ClipScore(keep_fraction=1), ROWS) == {"e": ("no clip_score", None)}


def test_nothing_comes_in(judge: Judge) -> None:
    assert judge(ClipScore(keep_fraction=0.5), []) == {}


@pytest.mark.parametrize("parameters", [{}, {"min": 0.1, "keep_fraction": 0.3}])
def test_one_of_both_must_be_given(parameters: dict) -> None:
    with pytest.raises(ValidationError, match="give either min or keep_fraction"):
        ClipScore(**parameters)
