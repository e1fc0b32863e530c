"""Composition, memorisation and bias: tasks that compare scores with each other."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from task_models import Embedding, Scripted, picture

from trainer.tasks.bias import gaps
from trainer.tasks.compositional import winoground
from trainer.tasks.contract import run_task
from trainer.tasks.memorisation import area
from trainer.tasks.write import write_task


def test_winoground_by_hand() -> None:
    """Rows are images, columns captions; the right ones are on the diagonal."""
    scores = np.array(
        [
            [[0.9, 0.1], [0.2, 0.8]],  # all right
            [[0.5, 0.4], [0.8, 0.9]],  # both captions found, but image 1 fits caption 0 better than image 0 does
            [[0.5, 0.9], [0.4, 0.95]],  # both images found
            [[0.5, 0.5], [0.5, 0.5]],  # equal is wrong
        ]
    )
    text, image = winoground(scores)
    assert text.tolist() == [True, True, False, False]
    assert image.tolist() == [True, False, True, False]


def test_by_chance_the_group_score_is_a_sixth() -> None:
    text, image = winoground(np.random.default_rng(0).random((40_000, 2, 2)))
    assert (text.mean(), image.mean()) == pytest.approx((1 / 4, 1 / 4), abs=0.01)
    assert (text & image).mean() == pytest.approx(1 / 6, abs=0.01)


def test_compositional(tmp_path: Path) -> None:
    items = [
        {"image_0": picture(n), "image_1": picture(n + 1), "caption_0": f"{n}", "caption_1": f"{n + 1}"}
        for n in (10, 20, 30)
    ] + [{"image_0": picture(1), "caption_0": "a", "caption_1": "b"}]
    folder = write_task(tmp_path / "pairs", {"kind": "compositional"}, items)
    done = run_task(str(folder), Scripted(lambda n, text: -abs(n - int(text)) if n < 30 else 0.0), 8)
    assert (done.metric, done.scores, done.skipped) == ("group_score", [1, 1, 0], {"no image": 1})
    assert done.metrics["text_score"] == done.metrics["image_score"] == 2 / 3


def memory(folder: Path, trained: int, held_out: int) -> Path:
    for part, numbers in (("train", range(trained)), ("test", range(100, 100 + held_out))):
        items = [{"image": picture(n), "captions": [f"{n}"]} for n in numbers]
        write_task(folder, {"kind": "memorisation"}, items, part=part)
    return folder


def test_memorisation(tmp_path: Path) -> None:
    folder = memory(tmp_path / "remembered", 20, 30)
    done = run_task(str(folder), Scripted(lambda n, text: (n * 7919 % 101) + 30.0 * (n < 100)), 7)
    fits = [(n * 7919 % 101) + 30 for n in range(20)], [n * 7919 % 101 for n in range(100, 130)]
    assert done.value == pytest.approx(stats.mannwhitneyu(*fits).statistic / 600)
    assert (done.metric, done.items, done.numbers) == ("auc", 20, ["auc", "held_out_pairs"])
    assert done.low < done.value < done.high
    nothing = run_task(str(folder), Scripted(lambda n, text: 1.0), 7)
    assert nothing.value == 0.5


def test_memorisation_in_one_place(tmp_path: Path) -> None:
    items = [{"image": picture(n), "captions": ["x"], "trained": n < 3} for n in range(9)]
    folder = write_task(tmp_path / "remembered", {"kind": "memorisation"}, items)
    done = run_task(str(folder), Scripted(lambda n, text: -float(n)), 4)
    assert (done.items, done.value, done.high) == (3, 1, 1)
    assert 0.3 < done.low < 0.5  # three items say little
    write_task(folder, {"kind": "memorisation"}, items[:2])
    with pytest.raises(ValueError, match="needs trained and held-out pairs, and has 2 and 0"):
        run_task(str(folder), Scripted(lambda n, text: 0.0), 4)


@settings(max_examples=50, deadline=None)
@given(*[st.lists(st.integers(0, 9), min_size=2, max_size=30)] * 2)
def test_the_area_is_the_rank_statistic(positive: list[int], negative: list[int]) -> None:
    above, (low, high) = area(np.array(positive, float), np.array(negative, float))
    expected = stats.mannwhitneyu(positive, negative).statistic / len(positive) / len(negative)
    assert above.mean() == pytest.approx(expected)
    assert 0 <= low <= above.mean() + 1e-12 <= high + 2e-12 <= 1 + 3e-12


def test_the_interval_of_the_area_holds_the_truth() -> None:
    """Normal scores one standard deviation apart: the area is Phi(1 / sqrt 2)."""
    rng, true = np.random.default_rng(0), stats.norm.cdf(1 / math.sqrt(2))
    held = 0
    for _ in range(400):
        _, (low, high) = area(rng.normal(1, 1, 60), rng.normal(0, 1, 40))
        held += low <= true <= high
    assert 0.92 <= held / 400 <= 0.98


def test_bias(tmp_path: Path) -> None:
    """Image n < 100 is a cat; the model sees no dogs of the group "east"."""
    items = [
        {"image": picture(n + 100 * dog), "label": dog, "group": group, "captions": []}
        for dog in (0, 1)
        for n, group in enumerate(["west"] * 10 + ["east"] * 10)
    ]
    items[0].pop("group")
    settings = {"kind": "bias", "classnames": ["cat", "dog"], "templates": ["a {c}"]}
    folder = write_task(tmp_path / "groups", settings, items)
    model = Embedding(lambda what: [1.0, 0.0] if what in ("a cat", *range(100), *range(110, 120)) else [0.0, 1.0])
    done = run_task(str(folder), model, 16)
    assert (done.metric, done.items, done.value) == ("accuracy", 39, 29 / 39)
    assert done.skipped == {"no group": 1}
    expected = {"worst_group": 0.5, "gap": 0.5, "group east": 0.5, "group west": 1.0}
    assert {name: done.metrics[name] for name in expected} == expected
    assert 0.2 < done.metrics["gap_low"] < 0.5 < done.metrics["gap_high"] < 0.8
    assert done.metrics["gap_p"] < 0.01


def test_a_gap_by_luck_is_not_taken_for_bias() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(list("abcdefgh"), 40)
    found = [gaps(rng.random(320) < 0.7, groups, seed) for seed in range(60)]
    assert min(one["gap"] for one in found) > 0.05  # there always is one
    assert np.mean([one["gap_p"] < 0.05 for one in found]) <= 0.15
    assert np.mean([one["gap_p"] for one in found]) == pytest.approx(0.5, abs=0.15)


def test_one_group_has_no_gap() -> None:
    found = gaps(np.array([1, 0, 1]), np.array(["a", "a", "a"]))
    assert (found["gap"], found["gap_high"], found["gap_p"], found["worst_group"]) == (0, 0, 1, 2 / 3)
