from __future__ import annotations

from filters.exact_duplicates import ExactDuplicates
from tests.filters.conftest import Judge

ROWS = [
    {"uid": "c", "sha256": "x", "clip_score": 0.3},
    {"uid": "a", "sha256": "x", "clip_score": 0.1},
    {"uid": "b", "sha256": "y", "clip_score": 0.2},
    {"uid": "d", "sha256": None, "clip_score": None},
    {"uid": "e", "sha256": None, "clip_score": None},
]


def test_the_first_by_uid_stays(judge: Judge) -> None:
    assert judge(ExactDuplicates(), ROWS) == {"c": ("same image file as a kept sample", "a")}


def test_the_best_score_stays(judge: Judge) -> None:
    assert judge(ExactDuplicates(keep="highest_clip_score"), ROWS) == {"a": ("same image file as a kept sample", "c")}
