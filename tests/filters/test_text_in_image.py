"""Captions that are merely the text in the image."""

from __future__ import annotations

from typing import Any

from filters.text_in_image import TextInImage
from tests.filters.conftest import Judge

POSTER: dict[str, Any] = {"text_area": 0.4, "caption_in_image": 0.95}
SIGN: dict[str, Any] = {"text_area": 0.02, "caption_in_image": 0.9}
PHOTO: dict[str, Any] = {"text_area": 0.0, "caption_in_image": 0.0}


def test_a_caption_that_says_no_more_than_the_image_is_dropped(judge: Judge) -> None:
    assert judge(TextInImage(max_caption_overlap=0.8), [PHOTO, POSTER, {}]) == {
        "u001": ("0.95 of the caption is text in the image > 0.8", None),
        "u002": ("not measured: text_area, caption_in_image", None),
    }


def test_little_text_can_be_spared_and_much_dropped(judge: Judge) -> None:
    assert set(judge(TextInImage(), [SIGN, POSTER])) == {"u000", "u001"}
    assert set(judge(TextInImage(min_text_area=0.1), [SIGN, POSTER])) == {"u001"}
    wordy = {"text_area": 0.4, "caption_in_image": 0.1}
    assert judge(TextInImage(max_text_area=0.3), [PHOTO, wordy]) == {
        "u001": ("text covers 0.40 of the image > 0.3", None)
    }


def test_a_pair_without_a_caption_is_judged_by_its_area(judge: Judge) -> None:
    silent = {"text_area": 0.4, "caption_in_image": None}
    assert judge(TextInImage(), [silent]) == {}
    assert set(judge(TextInImage(max_text_area=0.3), [silent])) == {"u000"}
