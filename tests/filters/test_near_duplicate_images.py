"""Copies of a picture go and all but one stay, whether told bit by bit or by what the pictures show."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps
from pydantic import ValidationError

from curate.features.batch import Batch
from curate.features.image_views import ImageViews
from curate.shards import Sample
from filters.near_duplicate_images import NearDuplicateImages
from tests.conftest import encoded, photo, shared_data
from tests.experiments.image_copies import COPIES, copy_of
from tests.filters.conftest import Judge


def plain(**parameters: Any) -> NearDuplicateImages:
    return NearDuplicateImages(verified=False, **parameters)


def rows(**images: bytes) -> list[dict[str, Any]]:
    """Rows of images, by uid; each is as wide as its file says."""
    samples = [Sample(uid, 0, 0, memoryview(image), 0, "") for uid, image in images.items()]
    views = {name: column.to_pylist() for name, column in ImageViews().measure(Batch("0.tar", samples)).items()}
    sizes = [Image.open(io.BytesIO(image)).size for image in images.values()]
    return [
        {"uid": uid, "width": w, "height": h} | {name: values[n] for name, values in views.items()}
        for n, (uid, (w, h)) in enumerate(zip(images, sizes, strict=True))
    ]


def flipped(value: int, *bits: int) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


def test_the_largest_stays_and_the_reason_counts_bits(judge: Judge) -> None:
    rows = [
        {"uid": "small", "phash": 0xF0F0, "width": 10, "height": 10},
        {"uid": "large", "phash": flipped(0xF0F0, 1, 40, 63), "width": 90, "height": 90},
        {"uid": "other", "phash": 0xFFFF0000FFFF0000, "width": 10, "height": 10},
        {"uid": "unknown", "phash": None, "width": 10, "height": 10},
    ]
    dropped = judge(plain(max_distance=3), rows)
    assert dropped == {"small": ("phash 3 bits from a kept image's, <= 3", "large")}
    assert judge(plain(max_distance=2), rows) == {}


def test_a_chain_does_not_merge_what_is_far_apart(judge: Judge) -> None:
    a, b, c = 0, 0b111, 0b111111
    rows = [{"uid": name, "phash": value, "width": 1, "height": 1} for name, value in (("a", a), ("b", b), ("c", c))]
    assert set(judge(plain(max_distance=3), rows)) == {"b"}


def test_equal_hashes_are_one_group(judge: Judge) -> None:
    rows = [{"uid": f"{n:04d}", "phash": 7, "width": n, "height": 1} for n in range(500)]
    dropped = judge(plain(max_distance=4), rows)
    assert len(dropped) == 499 and {survivor for _, survivor in dropped.values()} == {"0499"}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**12 - 1), min_size=1, max_size=40), st.integers(0, 6))
def test_groups_hold_together(values: list[int], max_distance: int) -> None:
    judge_rows = [{"uid": f"{n:03d}", "phash": v, "width": v % 7, "height": 3} for n, v in enumerate(values)]
    from tests.filters.conftest import judge

    dropped = judge.__wrapped__()(plain(max_distance=max_distance), judge_rows)  # type: ignore[attr-defined]
    of = {row["uid"]: int(row["phash"]) for row in judge_rows}
    for uid, (_, survivor) in dropped.items():
        assert survivor is not None and survivor not in dropped
        assert (of[uid] ^ of[survivor]).bit_count() <= max_distance
    kept = [value for uid, value in of.items() if uid not in dropped]
    assert all((a ^ b).bit_count() > max_distance for i, a in enumerate(kept) for b in kept[:i])


def scene(seed: int) -> Image.Image:
    """A drawn picture with edges, as a photo has them."""
    random = np.random.default_rng(seed)
    image = photo(seed, (400, 300))
    for _ in range(12):
        x, y, w, h = random.integers(0, 300, 4)
        box, colour = (x, y, x + w // 3 + 20, y + h // 3 + 20), tuple(random.integers(0, 256, 3).tolist())
        (ImageDraw.Draw(image).ellipse if random.random() < 0.5 else ImageDraw.Draw(image).rectangle)(box, fill=colour)
    return image


def test_copies_of_a_drawn_scene_go_and_others_stay(judge: Judge) -> None:
    given = {f"{n}-scene": encoded(scene(n), "PNG") for n in range(6)}
    for n, name in enumerate(["half size", "grayscale", "crop 5 % a side", "border of 4 pixels", "corner watermark"]):
        given[f"{n}-copy"] = copy_of(given[f"{n}-scene"], name, seed=n)
    dropped = judge(NearDuplicateImages(keep="first"), rows(**given))
    assert {uid: of for uid, (_, of) in dropped.items()} == {f"{n}-scene": f"{n}-copy" for n in range(5)}
    assert all(reason.endswith(" alike a kept image, >= 0.9") for reason, _ in dropped.values())


def test_the_largest_of_the_copies_stays(judge: Judge) -> None:
    image = scene(1)
    found = judge(NearDuplicateImages(), rows(a=encoded(image.resize((200, 150))), b=encoded(image)))
    assert set(found) == {"a"}


def test_mirrored_and_turned_copies_are_seen_when_asked_for(judge: Judge) -> None:
    image = scene(2)
    given = {"a": image, "m": ImageOps.mirror(image), "r": image.rotate(90, expand=True), "h": image.rotate(180)}
    given["t"] = ImageOps.mirror(image).rotate(90, expand=True)
    table = rows(**{uid: encoded(each) for uid, each in given.items()})
    assert judge(NearDuplicateImages(keep="first"), table) == {}
    assert set(judge(NearDuplicateImages(keep="first", mirror=True), table)) == {"m"}
    assert set(judge(NearDuplicateImages(keep="first", rotations=True), table)) == {"h", "r", "t"}  # t is m turned
    assert set(judge(NearDuplicateImages(keep="first", mirror=True, rotations=True), table)) == {"m", "r", "h", "t"}


def test_blank_images_are_copies_of_those_as_bright(judge: Judge) -> None:
    shades = {"w1": 255, "w2": 255, "w3": 254, "g": 120, "b": 0}
    table = rows(**{uid: encoded(Image.new("L", (90, 90), shade), "PNG") for uid, shade in shades.items()})
    assert set(judge(NearDuplicateImages(), table)) == {"w2", "w3"}


def test_a_thousand_copies_are_compared_with_one(judge: Judge) -> None:
    one, other = rows(a=encoded(scene(3)), b=encoded(scene(4)))
    table = [one | {"uid": f"{n:04d}"} for n in range(1000)] + [other | {"uid": f"x{n}"} for n in range(3)]
    dropped = judge(NearDuplicateImages(), table)
    assert len(dropped) == 1001 and {of for _, of in dropped.values()} == {"0000", "x0"}


def test_a_copy_of_a_copy_goes_to_the_same_survivor(judge: Judge) -> None:
    image = encoded(scene(5), "PNG")
    copies = {name: copy_of(image, name, 3) for name in ("crop 10 % a side", "corner watermark", "crop 5 %, quality 40",
                                                        "black border of 10 pixels", "half size")}  # fmt: skip
    dropped = judge(NearDuplicateImages(), rows(original=image, **copies))
    assert len(dropped) == 5 and len({of for _, of in dropped.values()}) == 1


def test_a_hash_but_phash_and_turns_have_their_mode() -> None:
    with pytest.raises(ValidationError, match="verified: false"):
        NearDuplicateImages(hash="dhash")
    with pytest.raises(ValidationError, match="verified: true"):
        plain(mirror=True)


def test_only_the_columns_of_the_mode_are_read() -> None:
    assert NearDuplicateImages(keep="first").reads == ("view_hashes", "thumbnail")
    assert plain(hash="colorhash").reads == ("colorhash", "width", "height")


def test_other_hashes(judge: Judge) -> None:
    table = [{"uid": uid, "dhash": value, "colorhash": value} for uid, value in (("a", 7), ("b", 5), ("c", 1 << 41))]
    for name in ("dhash", "colorhash"):
        dropped = judge(plain(hash=name, max_distance=1, keep="first"), table)
        assert dropped == {"b": (f"{name} 1 bits from a kept image's, <= 1", "a")}


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["photos.parquet", "captioned.parquet"])
def test_no_two_photos_are_merged(name: str, judge: Judge) -> None:
    photos = pq.read_table(shared_data(name))
    table = rows(**dict(zip(photos["key"].to_pylist(), photos["jpg"].to_pylist(), strict=True)))
    assert judge(NearDuplicateImages(mirror=True, rotations=True), table) == {}


@pytest.mark.shared_data
def test_all_copies_of_photos_in_one_pool_are_found(judge: Judge) -> None:
    photos = pq.read_table(shared_data("photos.parquet"))["jpg"].to_pylist()[200:220]
    given = {f"{n}": image for n, image in enumerate(photos)}
    given |= {f"{n}-{name}": copy_of(photo, name, n) for name in COPIES for n, photo in enumerate(photos)}
    dropped = judge(NearDuplicateImages(mirror=True, rotations=True), rows(**given))
    assert all(uid.split("-")[0] == of.split("-")[0] for uid, (_, of) in dropped.items() if of)
    assert len(dropped) >= 0.99 * (len(given) - len(photos))
