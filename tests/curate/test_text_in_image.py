"""Text in images: real detection and reading of drawn words."""

from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFont

from curate.errors import RequestError
from curate.extras import package_digest
from curate.features.text_in_image import TextInImage, share_read
from tests.conftest import encoded, photo, shared_data
from tests.curate.test_features import batch

pytest.importorskip("rapidocr_onnxruntime", reason="needs the extra [ocr], which Python 3.13 lacks")


def written(words: str, size: tuple[int, int] = (480, 320), letters: int = 36) -> Image.Image:
    image = photo(3, size)
    draw = ImageDraw.Draw(image)
    draw.text((20, size[1] // 2), words, "white", ImageFont.load_default(letters), stroke_width=2, stroke_fill="black")
    return image


def measured(*pairs: tuple[bytes, str | None], **parameters: object) -> dict[str, list]:
    columns = TextInImage(**parameters).measure(batch(*pairs))  # type: ignore[arg-type]
    return {name: values.to_pylist() for name, values in columns.items()}


def test_drawn_words_are_read_and_compared_with_the_caption() -> None:
    image = encoded(written("Summer sale today"))
    found = measured((image, "SUMMER SALE, TODAY!"), (image, "a wide green valley"), (encoded(photo(1)), "sale"))
    assert found["image_text"][0] == found["image_text"][1]
    assert share_read("Summer sale today", found["image_text"][0]) == 1
    assert found["caption_in_image"] == [1, 0, 0]
    assert found["text_boxes"][2] == 0 and found["image_text"][2] == "" and found["text_area"][2] == 0


def test_text_area_is_the_share_that_the_letters_cover() -> None:
    image = written("Summer sale today", letters=40)
    left, top, right, bottom = ImageDraw.Draw(image).textbbox(
        (20, 160), "Summer sale today", ImageFont.load_default(40)
    )
    share = (right - left) * (bottom - top) / (480 * 320)
    found = measured((encoded(image), ""))
    assert share * 0.8 < found["text_area"][0] < share * 2  # the detector's boxes leave some room around letters


def test_a_large_image_is_read_at_a_bounded_side() -> None:
    image = encoded(written("Summer sale today", (2400, 1600), 200))
    assert measured((image, "Summer sale today"))["caption_in_image"] == [1]


@pytest.mark.parametrize(
    ("caption", "text", "share"),
    [
        ("Summer SALE!", "summersale 50% off", 1),
        ("a summer day", "SUMMER SALE", 0.6),
        ("two dogs on the beach", "SUMMER SALE", 0),
        ("STOP", "stop", 1),
        ("sun", "the sun", 1),
        ("sun", "a sunny day", 0),
        ("北京欢迎你", "北京欢迎你 2008", 1),
        ("?!", "?!", 0),
        ("anything", "", 0),
    ],
)
def test_the_share_of_a_caption_that_a_text_holds(caption: str, text: str, share: float) -> None:
    assert share_read(caption, text) == pytest.approx(share)


def test_broken_images_and_lost_captions_give_nulls() -> None:
    found = measured((b"\xff\xd8 broken", "a caption"), (encoded(written("Summer sale")), None))
    assert [values[0] for values in found.values()] == [None] * 4
    assert found["caption_in_image"][1] is None and found["text_boxes"][1] == 1


def test_odd_images_are_measured() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8))
    frames = [written("Summer sale"), photo(2, (480, 320))]
    animation = io.BytesIO()
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    odd = [
        encoded(Image.new("RGB", (1, 1)), "PNG"),
        encoded(Image.new("RGB", (5000, 3)), "PNG"),
        encoded(Image.new("1", (3, 5000)), "PNG"),
        encoded(Image.new("RGBA", (40, 17), (255, 0, 0, 9)), "PNG"),
        encoded(written("Summer sale").convert("CMYK")),
        encoded(Image.new("I;16", (64, 64)), "PNG"),
        encoded(noise),
        encoded(Image.new("L", (6000, 6000)), "PNG"),
        animation.getvalue(),
    ]
    found = measured(*((image, "Summer sale") for image in odd))
    assert all(0 <= area <= 1 for area in found["text_area"])
    assert found["caption_in_image"][4] == found["caption_in_image"][8] == 1


def test_a_page_of_small_print_is_read_in_part_but_counted_whole() -> None:
    page = Image.new("RGB", (640, 640), "white")
    for y in range(0, 640, 20):
        ImageDraw.Draw(page).text((0, y), "many small words in a row " * 6, "black", ImageFont.load_default(11))
    found = measured((encoded(page), "many small words in a row"))
    assert found["text_boxes"][0] > 25 and found["text_area"][0] > 0.5
    assert 0 < len(found["image_text"][0]) <= 1000 and found["caption_in_image"] == [1]


def test_a_missing_package_is_named_with_the_extra_that_brings_it() -> None:
    with pytest.raises(RequestError, match=r"features.text_in_image: needs the package no_such_ocr.*\[ocr\]"):
        package_digest("no_such_ocr", ("*.onnx",), "text_in_image", "install curate with its extra [ocr]")


@pytest.mark.shared_data
def test_photos_without_text_have_none() -> None:
    rows = pq.read_table(shared_data("captioned.parquet")).slice(0, 24).to_pylist()
    found = measured(*((row["jpg"], row["captions"][0]) for row in rows))
    assert max(found["caption_in_image"]) < 0.3 and np.mean(found["text_area"]) < 0.02
