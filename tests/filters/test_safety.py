"""What the safety filter drops, and what it says."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from filters.safety import Safety
from tests.filters.conftest import Judge


def test_unsafe_images_are_dropped(judge: Judge) -> None:
    rows = [{"nsfw": 0.1}, {"nsfw": 0.8}, {"nsfw": 0.93}, {}]
    assert judge(Safety(max_nsfw=0.8), rows) == {
        "u002": ("nsfw 0.93 > 0.8", None),
        "u003": ("not measured: nsfw", None),
    }


def test_faces_are_dropped_on_request(judge: Judge) -> None:
    rows = [{"nsfw": 0, "face_count": 0, "face_area": 0}, {"nsfw": 0, "face_count": 2, "face_area": 0.3}]
    assert judge(Safety(), rows) == {}
    assert judge(Safety(faces="drop"), rows) == {"u001": ("faces: 2 > 0", None)}
    assert judge(Safety(max_face_area=0.2), rows) == {"u001": ("faces cover 0.30 of the image > 0.2", None)}
    assert judge(Safety(max_face_area=0.5), rows) == {}


def test_with_blur_faces_stay_unless_nobody_looked_for_them(judge: Judge) -> None:
    rows = [{"nsfw": 0.1, "face_count": 3}, {"nsfw": 0.9, "face_count": 0}, {"nsfw": 0.1}]
    assert judge(Safety(faces="blur"), rows) == {
        "u001": ("nsfw 0.90 > 0.8", None),
        "u002": ("not measured: nsfw, face_count", None),
    }
    assert set(judge(Safety(max_nsfw=None, faces="blur"), rows)) == {"u002"}


def test_only_what_is_asked_for_is_measured() -> None:
    assert Safety().reads == ("nsfw",)
    assert Safety(max_nsfw=None, faces="drop").reads == ("face_count",)
    with pytest.raises(ValidationError, match="nothing would be dropped"):
        Safety(max_nsfw=None)
