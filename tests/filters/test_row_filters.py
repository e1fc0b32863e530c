"""What each row filter drops, and what it says."""

from __future__ import annotations

import pytest

from filters.aspect_ratio import AspectRatio
from filters.caption_rules import CaptionRules
from filters.contract import Columns, RowFilter
from filters.image_quality import ImageQuality
from filters.image_size import ImageSize
from filters.language import Language
from tests.filters.conftest import Judge


def test_image_size(judge: Judge) -> None:
    rows = [{"width": 64, "height": 64}, {"width": 500, "height": 40}, {"width": 900, "height": 600}, {}]
    assert judge(ImageSize(min_side=64, max_side=800), rows) == {
        "u001": ("500x40 pixels: shorter side < 64", None),
        "u002": ("900x600 pixels: longer side > 800", None),
        "u003": ("not measured: width, height", None),
    }


def test_aspect_ratio(judge: Judge) -> None:
    rows = [{"width": 300, "height": 100}, {"width": 100, "height": 301}]
    assert judge(AspectRatio(max=3), rows) == {"u001": ("aspect ratio 3.01 > 3", None)}


def test_image_quality(judge: Judge) -> None:
    good = {"brightness": 0.5, "contrast": 0.2, "sharpness": 100, "entropy": 7}
    rows = [
        good,
        good | {"contrast": 0.001},
        good | {"brightness": 0.01},
        good | {"brightness": 0.995},
        good | {"sharpness": 1.5},
        good | {"entropy": 0.2},
    ]
    assert [reason for reason, _ in judge(ImageQuality(), rows).values()] == [
        "blank: contrast 0.001 < 0.02",
        "dark: brightness 0.010 < 0.04",
        "bright: brightness 0.995 > 0.98",
        "blurred: sharpness 1.500 < 5",
        "blank: entropy 0.200 < 0.5",
    ]


def test_caption_rules(judge: Judge) -> None:
    good = {"caption_words": 5, "caption_length": 30, "caption_alpha": 0.9}
    rows = [good, good | {"caption_words": 2}, good | {"caption_length": 4}, good | {"caption_alpha": 0.1},
            good | {"caption_length": 5000}, {}]  # fmt: skip
    assert [reason for reason, _ in judge(CaptionRules(), rows).values()] == [
        "2 words < 3",
        "4 characters < 6",
        "share of letters 0.10 < 0.5",
        "5000 characters > 1000",
        "not measured: caption_words, caption_length, caption_alpha",
    ]


def test_language(judge: Judge) -> None:
    rows = [
        {"language": "en", "language_probability": 0.9},
        {"language": "en", "language_probability": 0.2},
        {"language": "de", "language_probability": 0.99},
        {"language": None, "language_probability": None},
    ]
    assert judge(Language(keep=["en", "fr"]), rows) == {
        "u001": ("language en with probability 0.20 < 0.5", None),
        "u002": ("language de with probability 0.99, not en, fr", None),
        "u003": ("no language can be told", None),
    }


def test_a_filter_sees_only_the_columns_it_declares(judge: Judge) -> None:
    class Peeks(RowFilter):
        @property
        def reads(self) -> tuple[str, ...]:
            return ("width",)

        def keep(self, t: Columns):  # type: ignore[no-untyped-def]
            return t.height > 3

        def reason(self, t: Columns):  # type: ignore[no-untyped-def]
            return t.width.cast("string")

    with pytest.raises(AttributeError, match="'height' is not among those the filter reads: width"):
        judge(Peeks(), [{"width": 1}])
