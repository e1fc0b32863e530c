"""Captions that are wrong in little: what is changed, and what is not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.hard_negatives import COLOURS, OPPOSITES, WithHardNegatives, hard_negative
from trainer.model import build_tokenizer
from trainer.scales import SCALES


@pytest.mark.parametrize(
    ("caption", "negatives"),
    [
        ("a star above a star", {"a star below a star"}),
        ("The house on the LEFT.", {"The house on the right."}),
        ("a heart behind", {"a heart in front of"}),
        ("a dog chases the cat", {"a cat chases the dog", "a chases dog the cat", "a dog cat the chases"}),
    ],
)
def test_what_is_changed(caption: str, negatives: set[str]) -> None:
    assert hard_negative(caption) in negatives


def test_colours_are_swapped_or_replaced() -> None:
    captions = [f"a red {thing} and a blue heart" for thing in ("star", "fish", "tree", "car", "house", "flower")]
    swapped = [caption.replace("red", "x").replace("blue", "red").replace("x", "blue") for caption in captions]
    changed = [hard_negative(caption) for caption in captions]
    assert any(one == other for one, other in zip(changed, swapped, strict=True))
    assert any(one != other for one, other in zip(changed, swapped, strict=True))
    for caption, one in zip(captions, changed, strict=True):
        others = [(a, b) for a, b in zip(caption.split(), one.split(), strict=True) if a != b]
        assert 1 <= len(others) <= 2
        assert all(a in COLOURS and b in COLOURS for a, b in others)


@pytest.mark.parametrize("caption", ["", "   ", "a star", "a star and a heart", "star star", "!!! ...", "the of and"])
def test_nothing_is_changed_where_the_caption_would_stay_true_or_has_nothing_to_change(caption: str) -> None:
    assert hard_negative(caption) == ""


def test_opposites_go_both_ways() -> None:
    assert OPPOSITES["left"] == "right"
    assert OPPOSITES["right"] == "left"


@given(st.text(max_size=60) | st.lists(st.sampled_from(["red", "left", "dog", "a", "two", "of", "cat"])).map(" ".join))
def test_a_hard_negative_differs_and_is_the_same_again(caption: str) -> None:
    changed = hard_negative(caption)
    assert changed != caption or changed == ""
    assert changed == hard_negative(caption)


def test_the_tokenizer_gives_two_rows() -> None:
    plain = build_tokenizer(SCALES["tiny"])
    captions = ["a star to the left of a heart", "a star"]
    tokens = WithHardNegatives(plain)(captions)
    assert tokens.shape == (2, 2, 32)
    assert torch.equal(tokens[:, 0], plain(captions))
    assert torch.equal(tokens[0, 1], plain(["a star to the right of a heart"])[0])
    assert not tokens[1, 1].any()
