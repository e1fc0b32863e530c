"""Hashes are those of imagehash on the same pixels, and a turned or cropped view has the hash of such a copy."""

from __future__ import annotations

from typing import Any

import imagehash
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from curate.features import feature_class
from curate.features.batch import Batch
from curate.features.image_views import view_hashes
from curate.features.phash import phashes
from curate.shards import Sample
from filters._views import CUTS, FLAT, MIRROR, PART_VIEWS, PARTS, ROTATIONS, TURNS, VIEWS, WHOLE, WINDOW_VIEWS, WINDOWS
from tests.conftest import encoded, photo, shared_data


def measured(name: str, *images: bytes) -> dict[str, list[Any]]:
    samples = [Sample(str(n), 0, 0, memoryview(image), 0, "") for n, image in enumerate(images)]
    columns = feature_class(name)().measure(Batch("00000.tar", samples))
    return {column: values.to_pylist() for column, values in columns.items()}


def bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.bitwise_count(np.asarray(a, np.uint64) ^ np.asarray(b, np.uint64))


def pictures() -> list[Image.Image]:
    drawn = [photo(n, (100 + n, 90)).convert(mode) for n in range(20) for mode in ("RGB", "L")]
    return [*drawn, Image.new("RGB", (60, 60), "red"), Image.new("RGB", (60, 60), "black"), photo(3).convert("RGBA")]


@pytest.mark.parametrize("name", ["phash", "dhash", "colorhash"])
def test_a_hash_equals_that_of_imagehash_where_nothing_is_scaled(name: str) -> None:
    found = measured(name, *(encoded(image, "PNG") for image in pictures()))[name]
    expected = [int(str(getattr(imagehash, name)(image.convert("RGB"))), 16) for image in pictures()]
    assert found == expected


def test_an_unreadable_image_has_no_hash() -> None:
    for name in ("dhash", "colorhash", "image_views"):
        found = measured(name, b"no image", encoded(photo(1)))
        assert all(values[0] is None and values[1] is not None for values in found.values())


def test_views_are_the_hashes_of_the_image_turned_and_cut() -> None:
    images = [photo(n, (256, 256)).convert("L") for n in range(12)]
    grays = np.stack([np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS)) for image in images])
    views = view_hashes(grays)
    assert views.shape == (12, VIEWS) and (views[:, WHOLE] == phashes(grays)).all()
    for view, (swapped, across, down) in enumerate(TURNS):
        turned = (grays.transpose(0, 2, 1) if swapped else grays)[:, ::down, ::across]
        assert (views[:, view] == phashes(np.ascontiguousarray(turned))).all()
    for view, (across, down) in zip((*PARTS, *WINDOWS), (*PART_VIEWS, *WINDOW_VIEWS), strict=True):
        cut = np.stack([np.asarray(window(image, CUTS[across], CUTS[down])) for image in images])
        assert bits(views[:, view], phashes(cut)).mean() < 3


def window(image: Image.Image, across: tuple[float, float], down: tuple[float, float]) -> Image.Image:
    w, h = image.size
    box = (w * across[0], h * down[0], w - w * across[1], h - h * down[1])
    return image.resize((32, 32), Image.Resampling.LANCZOS, box)


def test_the_names_of_turns() -> None:
    image = photo(4, (256, 256)).convert("L")
    whole = np.array(measured("image_views", encoded(image, "PNG"))["view_hashes"][0], np.uint64)
    mirrored = measured("image_views", encoded(ImageOps.mirror(image), "PNG"))["view_hashes"][0]
    assert bits(whole[MIRROR[0]], np.uint64(mirrored[0])) <= 2
    turned = [measured("image_views", encoded(image.rotate(a), "PNG"))["view_hashes"][0][0] for a in (90, 180, 270)]
    assert all(bits(whole[list(ROTATIONS)], np.uint64(one)).min() <= 2 for one in turned)


def test_what_shows_nothing_has_no_hash_but_its_brightness() -> None:
    views = view_hashes(np.full((2, 32, 32), [[[255]], [[3]]], np.uint8))
    assert (views[0] == 63).all() and (views[1] == 0).all() and FLAT == 64


def test_the_thumbnail_holds_the_pixels_row_by_row() -> None:
    ramp = Image.fromarray(np.arange(32 * 32, dtype=np.uint16).reshape(32, 32).astype(np.uint8))
    words = measured("image_views", encoded(ramp, "PNG"))["thumbnail"][0]
    assert np.array(words, "<u8").tobytes() == ramp.tobytes()


@pytest.mark.shared_data
def test_crops_of_photos_have_the_hash_of_a_window() -> None:
    photos = pq.read_table(shared_data("photos.parquet"))["jpg"].to_pylist()[:60]
    from tests.experiments.image_copies import copy_of

    whole = np.array(measured("image_views", *photos)["view_hashes"], np.uint64)
    for name in ("crop 5 % a side", "crop 10 % a side"):
        copies = np.array(measured("phash", *(copy_of(p, name, 0) for p in photos))["phash"], np.uint64)
        near = bits(whole[:, list(WINDOWS)], copies[:, None]).min(axis=1)
        assert (near <= 7).mean() > 0.98 and bits(whole[:, WHOLE], copies).mean() > 8
