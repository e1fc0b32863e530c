"""`ties: keep` is the threshold of DataComp's scripts: the score at place int(samples x fraction)."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from filters.clip_score import ClipScore
from tests.filters.conftest import Judge

it = ClipScore(keep_fraction=0.3, ties="keep")


def rows(*scores: float | None) -> list[dict]:
    return [{"uid": f"u{n:03d}", "clip_score": score} for n, score in enumerate(scores)]


def kept(judge: Judge, filter: ClipScore, *scores: float | None) -> list[str]:
    dropped = judge(filter, rows(*scores))
    return [row["uid"] for row in rows(*scores) if row["uid"] not in dropped]


def test_ten_samples_keep_four(judge: Judge) -> None:
    scores = [n / 10 for n in range(10)]
    assert kept(judge, it, *scores) == ["u006", "u007", "u008", "u009"]
    assert judge(it, rows(*scores))["u005"] == ("clip_score 0.500000 < 0.600000, the score at the top 0.3", None)


def test_ties_stay_and_a_missing_score_counts(judge: Judge) -> None:
    assert len(kept(judge, it, *[0.5] * 7, 0.1, 0.1, None)) == 7
    assert kept(judge, ClipScore(keep_fraction=1, ties="keep"), 0.1, None, 0.2) == ["u000", "u002"]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scores=st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.3]), min_size=1, max_size=120),
    fraction=st.sampled_from([0.3, 0.29, 0.1, 0.57, 0.999]),
)
def test_it_is_numpys_answer(judge: Judge, scores: list[float], fraction: float) -> None:
    values = np.array(scores, np.float32)
    threshold = -np.sort(-values)[int(len(values) * fraction)]
    expected = [f"u{n:03d}" for n in np.flatnonzero(values >= threshold)]
    assert kept(judge, ClipScore(keep_fraction=fraction, ties="keep"), *values.tolist()) == expected
