"""Two decoders, one result: what libjpeg-turbo reads straight from the shard is what Pillow would have read."""

from __future__ import annotations

import io
import random
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate import decode
from curate.features.batch import Batch
from curate.shards import Sample
from tests.conftest import photo, shared_data

SIDES = (48, 64, 96, 150, 224, 4000)


def jpeg(mode: str = "RGB", size: tuple[int, int] = (301, 262), kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    photo(sum(size), size).convert(mode).save(out, kind, **options)
    return out.getvalue()


def exif() -> Image.Exif:
    turned = Image.Exif()
    turned[0x0112] = 6
    return turned


def several() -> bytes:
    return jpeg(kind="MPO", save_all=True, append_images=[photo(2, (301, 262))])


PLAIN = {
    "colour": jpeg(),
    "no chroma subsampling": jpeg(subsampling=0),
    "half chroma": jpeg(subsampling=1),
    "gray": jpeg("L"),
    "progressive": jpeg(progressive=True),
    "restart markers": jpeg(restart_marker_blocks=4),
    "commented": jpeg(exif=exif(), icc_profile=b"p" * 70_000, comment=b"hello", dpi=(72, 72)),
    "tiny": jpeg(size=(1, 3)),
    "odd": jpeg(size=(517, 131)),
}
UNUSUAL = {
    "CMYK": jpeg("CMYK"),
    "several pictures": several(),
    "Adobe's RGB": jpeg(keep_rgb=True),
    "PNG": jpeg(kind="PNG"),
    "empty": b"",
    "no scan": jpeg()[:200],
}


def read(data: bytes, sides: tuple[int, ...] = SIDES) -> dict[str, Any]:
    """All that a batch tells of an image: header, errors, and pixels at every scale."""
    batch = Batch("0.tar", [Sample("a", 0, 0, memoryview(data), 0, "")])
    images = [batch.images(side, mode)[0] for side in sides for mode in ("L", "RGB")]
    return {
        "header": batch.open(0),
        "errors": (batch.open_errors, batch.decode_errors),
        "pixels": [image and (image.mode, image.size, image.tobytes()) for image in images],
    }


def read_by_pillow(data: bytes, sides: tuple[int, ...] = SIDES) -> dict[str, Any]:
    with patch("curate.features.batch.plain_jpeg", lambda _: None):
        return read(data, sides)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_jpeg_is_read_without_pillow_and_alike(kind: str) -> None:
    expected = read_by_pillow(PLAIN[kind])
    with patch("curate.features.batch.open_image", side_effect=AssertionError("Pillow was asked")):
        assert read(PLAIN[kind]) == expected
    assert None not in expected["pixels"]


@pytest.mark.parametrize("kind", UNUSUAL)
def test_anything_unusual_is_left_to_pillow(kind: str) -> None:
    assert decode.plain_jpeg(memoryview(UNUSUAL[kind])) is None


@pytest.mark.shared_data
@pytest.mark.parametrize("file", ["photos.parquet", "captioned.parquet"])
def test_real_photos_have_the_same_pixels(file: str) -> None:
    for data in pq.read_table(shared_data(file))["jpg"].to_pylist()[::8]:
        assert decode.plain_jpeg(memoryview(data)) is not None
        assert read(data, (64, 224)) == read_by_pillow(data, (64, 224))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*PLAIN.values(), *UNUSUAL.values()]), st.randoms(use_true_random=False))
def test_a_damaged_file_has_the_same_header_errors_and_pixels(data: bytes, chance: random.Random) -> None:
    damaged = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5])):
        place = chance.randrange(min(len(damaged), chance.choice([700, 1 << 20])) + 1)
        if chance.random() < 0.3:
            del damaged[place : place + chance.choice([1, 9, 1 << 20])]
        else:
            damaged[place : place + chance.choice([0, 1])] = chance.randbytes(chance.choice([1, 1, 12]))
    assert read(bytes(damaged), (64, 4000)) == read_by_pillow(bytes(damaged), (64, 4000))


def test_a_size_over_the_limit_is_refused_before_any_pixel_is_read() -> None:
    data = bytearray(PLAIN["colour"])
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    with patch("simplejpeg.decode_jpeg", side_effect=AssertionError("decoded")):
        found = read(bytes(data), (64,))
    assert found["header"] is None and "limit" in found["errors"][0][0]


@pytest.mark.parametrize(("side", "scale"), [(262, 1), (131, 2), (130, 2), (66, 2), (65, 4), (33, 4), (32, 8), (1, 8)])
def test_the_smallest_scale_that_leaves_the_side_is_taken(side: int, scale: int) -> None:
    image = Image.open(io.BytesIO(PLAIN["colour"]))
    image.draft("L", (side, side))
    header = decode.plain_jpeg(memoryview(PLAIN["colour"]))
    assert header is not None and decode.jpeg_scale(header, side) == scale
    assert image.size == (decode.scaled(301, scale), decode.scaled(262, scale))


def test_what_is_squeezed_is_the_image_and_not_the_decode_around_it() -> None:
    """An image of 257 rows has 65 rows at 1/4, of which the last lies a quarter inside it."""
    ramp = np.repeat(np.linspace(0, 255, 257).astype(np.uint8)[:, None], 500, axis=1)
    out = io.BytesIO()
    Image.fromarray(ramp).save(out, "JPEG", quality=100)
    batch = Batch("0.tar", [Sample("a", 0, 0, memoryview(out.getvalue()), 0, "")])
    scaled, _ = batch.grays(64, 32, Image.Resampling.BOX)
    whole, _ = batch.grays(257, 32, Image.Resampling.BOX)
    assert np.abs(scaled.astype(int) - whole).max() <= 1
