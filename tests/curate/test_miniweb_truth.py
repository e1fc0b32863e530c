"""Scoring a selection against the truth."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curate.demo.truth import DefectScore, score_selection
from curate.errors import WorkError

# path -> (defect, copy_of)
WEB = {
    "/a": ("none", None),
    "/b": ("none", None),
    "/c": ("none", None),
    "/a2": ("exact_copy", "/a"),
    "/b2": ("cropped", "/b"),
    "/swap": ("swapped_caption", None),
    "/dead": ("dead_link", None),
}
TRUTH = pa.table(
    {
        "path": pa.array(list(WEB)),
        "defect": pa.array([defect for defect, _ in WEB.values()]),
        "copy_of": pa.array([original for _, original in WEB.values()], pa.string()),
    }
)
ARRIVED = [path for path in WEB if path != "/dead"]
URLS = {("00000", path[1:]): f"http://127.0.0.1:4000{path}" for path in ARRIVED}


def selection(**dropped: str) -> pa.Table:
    """Everything kept but the named keys, each dropped by a filter."""
    keys = [path[1:] for path in ARRIVED]
    return pa.table(
        {
            "shard": pa.array(["00000.tar"] * len(keys)),
            "key": pa.array(keys),
            "keep": pa.array([key not in dropped for key in keys]),
            "filter": pa.array([dropped.get(key) for key in keys], pa.string()),
        }
    )


def by_defect(score: object) -> dict[str, DefectScore]:
    return {item.defect: item for item in score.defects}  # type: ignore[attr-defined]


def test_a_perfect_selection() -> None:
    score = score_selection(selection(a2="dup", b2="dup", swap="clip"), URLS, TRUTH)
    assert (score.clean, score.clean_kept, score.clean_lost) == (3, 3, 0)
    assert (score.groups, score.groups_right, score.precision) == (2, 2, 1.0)
    found = by_defect(score)
    assert found["swapped_caption"] == DefectScore("swapped_caption", 1, 0, 1, 0, {"clip": 1})
    assert found["dead_link"] == DefectScore("dead_link", 1, 1, 0, 0, {})
    assert found["dead_link"].recall is None


def test_a_copy_kept_in_place_of_its_original_is_right() -> None:
    score = score_selection(selection(a="dup", b2="dup"), URLS, TRUTH)
    assert (score.clean_kept, score.clean_lost, score.groups_right) == (3, 0, 2)
    assert by_defect(score)["exact_copy"].caught == 1
    assert by_defect(score)["swapped_caption"].missed == 1


def test_what_is_missed_and_what_is_lost() -> None:
    score = score_selection(selection(b="dup", b2="clip", c="clip"), URLS, TRUTH)
    assert (score.groups_several_kept, score.groups_all_dropped, score.groups_right) == (1, 1, 0)
    assert (score.clean_lost, score.lost_by_filter) == (2, {"dup": 1, "clip": 1})
    assert by_defect(score)["exact_copy"] == DefectScore("exact_copy", 1, 0, 0, 1, {})
    assert by_defect(score)["cropped"].by_filter == {"clip": 1}
    assert score.precision == pytest.approx(1 / 3)


def test_samples_that_are_not_in_the_pool_or_the_truth() -> None:
    with pytest.raises(WorkError, match="not in the pool"):
        score_selection(selection(), {}, TRUTH)
    with pytest.raises(WorkError, match="not in the truth"):
        score_selection(selection(), URLS, TRUTH.slice(1))
