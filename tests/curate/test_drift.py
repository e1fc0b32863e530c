"""Drift: what moved is said, what chance explains is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.curation import curate_pool
from curate.drift import HISTORY, Bounds, Observation, before, cells, compare, observe, read_history, record
from curate.engines import open_engine
from curate.pool import open_pool
from curate.recipe import load_recipe
from curate.storage import Folder
from tests.conftest import encoded, messy_pairs, pair, photo, write_pool


def observed(
    kept: int = 800, center: float = 0.3, seed: int = 0, recipe: str = "r", samples: int = 1000
) -> Observation:
    values = np.random.default_rng(seed).normal(center, 0.05, samples)
    return Observation(
        at="2026-01-01T00:00:00+00:00", out=f"out-{seed}", pool_fingerprint=str(seed), recipe_hash=recipe,
        samples=samples, rates={"clip_score": (samples, kept)}, scores={"CLIP score": cells(values, np.ones(samples))},
    )  # fmt: skip


EARLIER = [observed(kept=800 + 5 * n, seed=n) for n in range(5)]


def test_a_night_like_the_others_gives_no_alarm() -> None:
    moves = compare(observed(kept=805, seed=9), EARLIER, Bounds())
    assert [(move.kind, move.what, move.runs) for move in moves] == [
        ("keep rate", "clip_score", 5), ("distribution", "CLIP score", 5),
    ]  # fmt: skip
    assert not any(move.alarm for move in moves)


def test_a_filter_that_keeps_less_is_an_alarm_that_says_by_how_much() -> None:
    rate, scores = compare(observed(kept=700, seed=9), EARLIER, Bounds())
    assert rate.alarm and not scores.alarm
    assert str(rate).startswith("clip_score kept 70.0 % of what came in, 81.0 %".replace(" %", "%"))
    assert rate.as_dict()["change"] == pytest.approx(0.11)


def test_scores_that_moved_are_an_alarm_though_as_many_are_kept() -> None:
    rate, scores = compare(observed(kept=805, center=0.26, seed=9), EARLIER, Bounds())
    assert scores.alarm and not rate.alarm and scores.change > 0.2
    assert scores.before == pytest.approx(0.3, abs=0.01) and scores.now == pytest.approx(0.26, abs=0.01)


def test_a_small_change_is_no_alarm_however_sure_it_is() -> None:
    many = observed(kept=790_000, samples=1_000_000)
    (rate, _) = compare(observed(kept=780_000, samples=1_000_000, seed=1), [many], Bounds())
    assert rate.change == pytest.approx(0.01) and rate.bound == 0.02 and not rate.alarm


@given(st.integers(0, 500), st.sampled_from([10, 40, 200]))
def test_small_pools_from_one_source_give_no_alarm(seed: int, samples: int) -> None:
    rng = np.random.default_rng(seed + 1000)
    nights = [observed(kept=int(rng.binomial(samples, 0.8)), seed=seed * 10 + n, samples=samples) for n in range(6)]
    alarms = [move for move in compare(nights[-1], nights[:-1], Bounds(sigmas=4.5)) if move.alarm]
    assert not [move for move in alarms if move.kind == "keep rate"]
    assert all(move.change < 2 * move.bound for move in alarms)


def test_a_score_that_was_the_same_for_all_and_is_not_any_more_is_an_alarm() -> None:
    constant = EARLIER[0].model_copy(update={"scores": {"face count": {0: 1000}}})
    other = EARLIER[1].model_copy(update={"scores": {"face count": {0: 600, 461: 400}}})
    (move,) = [m for m in compare(other, [constant], Bounds()) if m.kind == "distribution"]
    assert move.alarm


def test_another_recipe_is_another_history_and_the_window_forgets() -> None:
    assert compare(observed(recipe="other"), EARLIER, Bounds()) == []
    moves = compare(observed(kept=820, seed=9), [observed(kept=100, seed=8), *EARLIER], Bounds(window=5))
    assert [move.runs for move in moves] == [5, 5] and not any(move.alarm for move in moves)


def test_a_history_keeps_each_request_once_and_survives_a_damaged_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(str(tmp_path / "history"))
    for run in EARLIER[:3]:
        record(folder, read_history(folder), run)
    again = EARLIER[1].model_copy(update={"at": "2026-01-09T00:00:00+00:00"})
    assert before(again, read_history(folder)) == ([EARLIER[0]], True)
    record(folder, read_history(folder), again)
    assert [run.at[:10] for run in read_history(folder)] == ["2026-01-01", "2026-01-09", "2026-01-01"]
    file = tmp_path / "history" / HISTORY
    file.write_text("{half of a li\n" + json.dumps({"at": 1}) + "\n" + file.read_text())
    assert len(read_history(folder)) == 3 and "damaged" in caplog.text


def test_two_real_nights_the_second_with_smaller_images(tmp_path: Path) -> None:
    engine, recipe = open_engine("local", 1), load_recipe("default")
    small = [pair(n, image=encoded(photo(n, (60, 44)))) for n in range(60)]
    found = []
    for name, pairs in (("a", [pair(n) for n in range(60)]), ("b", small), ("messy", messy_pairs())):
        pool, out = open_pool(str(write_pool(tmp_path / name, pairs, 30))), Folder(str(tmp_path / f"out-{name}"))
        found.append(observe(curate_pool(pool, recipe, out, engine), out, pool))
    engine.close()
    assert found[0].rates["image_size"] == (60, 60) and found[0].rates["all filters"][0] == 60
    assert sum(found[0].scores["shorter side, pixels"].values()) == 60
    moved = {move.what for move in compare(found[1], found[:1], Bounds()) if move.alarm}
    assert {"image_size", "all filters", "shorter side, pixels"} <= moved
    assert "caption length, words" not in moved
