"""Judged night after night, samples get the very verdicts of one run over all nights, however they are split."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters._memory import RememberingFilter
from filters._stars import NOTHING, Guesses, settle, stars
from filters.exact_duplicates import ExactDuplicates
from filters.near_duplicate_captions import NearDuplicateCaptions
from filters.near_duplicate_images import NearDuplicateImages
from filters.semantic_duplicates import SemanticDuplicates
from tests.conftest import shared_data
from tests.experiments.image_copies import COPIES, copy_of
from tests.filters.conftest import Judge
from tests.filters.nights import Row, night_after_night, one_run
from tests.filters.test_laws import some_rows
from tests.filters.test_near_duplicate_captions import rows as signed
from tests.filters.test_near_duplicate_images import rows as viewed

FILTERS: list[RememberingFilter] = [
    ExactDuplicates(keep="highest_clip_score"),
    NearDuplicateCaptions(min_jaccard=0.3, max_copies=2, boilerplate=6, keep="highest_clip_score"),
    NearDuplicateCaptions(min_jaccard=0.3, max_copies=None, boilerplate=None, boilerplate_share=0.05),
    NearDuplicateImages(mirror=True, rotations=True, keep="first"),
    NearDuplicateImages(verified=False, max_distance=8),
    NearDuplicateImages(verified=False, max_distance=0, hash="dhash", keep="highest_clip_score"),
    SemanticDuplicates(epsilon=0.3),
    SemanticDuplicates(epsilon=0.3, rule="published", keep="highest_clip_score"),
]
NAMES = [f"{type(it).__name__}{number}" for number, it in enumerate(FILTERS)]


def split(rows: list[Row], cuts: list[int]) -> list[list[Row]]:
    return [rows[start:stop] for start, stop in itertools.pairwise([0, *sorted(cuts), len(rows)])]


@pytest.mark.parametrize("it", FILTERS, ids=NAMES)
@settings(max_examples=2)
@given(st.integers(0, 50), st.lists(st.integers(0, 60), min_size=1, max_size=5))
def test_nights_say_what_one_run_says(it: RememberingFilter, seed: int, cuts: list[int]) -> None:
    nights = split(some_rows(60, seed), cuts)
    together = one_run(it, nights)
    assert night_after_night(it, nights) == together
    assert 0 < len(together) < 60


@pytest.mark.parametrize("it", FILTERS, ids=NAMES)
def test_one_night_is_an_ordinary_run(it: RememberingFilter, judge: Judge) -> None:
    rows = some_rows(40, seed=3)
    assert night_after_night(it, [rows]) == judge(it, rows)


@cache
def copied() -> tuple[Row, ...]:
    """Eight real photos and eight kinds of copies of each: cropped, resized, recompressed, mirrored, marked ..."""
    photos = pq.read_table(shared_data("photos.parquet"))["jpg"].to_pylist()[200:208]
    kinds = [*COPIES][:: max(1, len(COPIES) // 8)]
    given = {f"{n}": photo for n, photo in enumerate(photos)}
    given |= {f"{n}-{kind}": copy_of(photo, kind, n) for kind in kinds for n, photo in enumerate(photos)}
    return tuple(viewed(**given))


@settings(max_examples=2)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 72), min_size=1, max_size=4))
def test_copies_of_real_photos_are_found_across_nights(seed: int, cuts: list[int]) -> None:
    rows = [copied()[n] for n in np.random.default_rng(seed).permutation(len(copied()))]
    it, nights = NearDuplicateImages(mirror=True, rotations=True), split(rows, cuts)
    found = night_after_night(it, nights)
    assert found == one_run(it, nights)
    assert len(found) >= 0.9 * (len(rows) - 8)
    assert all(uid.split("-")[0] == (of or "").split("-")[0] for uid, (_, of) in found.items())


def test_a_photo_on_each_of_nine_nights_is_kept_once() -> None:
    mine = [row for row in copied() if row["uid"].split("-")[0] == "3"]
    found = night_after_night(NearDuplicateImages(mirror=True, rotations=True), [[row] for row in mine])
    assert {of for _, of in found.values()} == {"3"} and len(found) >= len(mine) - 2


def test_a_large_bucket_of_captions_grows_over_nights() -> None:
    template = "Photo {} from the gallery of the old town by the river, free to use in any work without asking"
    rows = [row | {"uid": f"{n:03d}"} for n, row in enumerate(signed(*(template.format(n * 37) for n in range(120))))]
    it = NearDuplicateCaptions(boilerplate=None, min_jaccard=0.85)
    nights = split(rows, [20, 34, 35, 36, 60, 90])
    together = one_run(it, nights)
    assert night_after_night(it, nights) == together and len(together) > 60


def test_what_becomes_boilerplate_later_takes_nothing_back() -> None:
    rows = [row | {"uid": f"{n}"} for n, row in enumerate(signed(*["Click to enlarge"] * 6))]
    it = NearDuplicateCaptions(boilerplate=4)
    found = night_after_night(it, [rows[:2], rows[2:5], rows[5:]])
    copy = "caption like a kept sample's: Jaccard 1.000 >= 0.800, 'Click to enlarge'"
    later = "boilerplate: {} samples >= 4 share the caption 'Click to enlarge'"
    assert found == {
        "1": (copy, "0"), **{n: (later.format(5), None) for n in "234"}, "5": (later.format(6), None),
    }  # fmt: skip
    assert found == one_run(it, [rows[:2], rows[2:5], rows[5:]])


def test_an_empty_night_changes_nothing() -> None:
    rows = some_rows(30, seed=8)
    for it in FILTERS[::3]:
        assert night_after_night(it, [[], rows[:20], [], rows[20:]]) == one_run(it, [rows[:20], rows[20:]])


def test_a_later_copy_does_not_join_two_that_were_kept() -> None:
    """Item 2 is a copy of 0, and might be one of 1: only if it came with 1 is 1 then compared with 0."""
    warp = np.tile(np.eye(2, 3, 1, dtype=np.float32), (2, 1, 1))
    guesses = Guesses(np.array([0, 1]), np.array([2, 2]), warp)

    def alike(left: np.ndarray, right: np.ndarray, warp: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.ones(len(left), bool), np.ones(len(left), np.float32), warp

    assert stars(3, guesses, alike).survivor.tolist() == [-1, 0, 0]
    assert stars(3, guesses, alike, np.array([0, 0, 1])).survivor.tolist() == [-1, -1, 0]
    assert settle(2, guesses, NOTHING.followed_by(3), alike).survivor.tolist() == [-1, -1, 0]
