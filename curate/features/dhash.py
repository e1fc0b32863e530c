"""Difference hash: where brightness rises from left to right."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.features.batch import Batch
from curate.features.contract import Feature
from curate.features.phash import DECODE_SIDE

SIZE = 8


class Dhash(Feature):
    """`dhash`: 64 bits as uint64, most significant bit first as in `str(imagehash.dhash(image))`.

    The gradient hash of Krawetz, "Kind of Like That" (2013), as imagehash defines it, on the scaled decode.
    """

    name: ClassVar = "dhash"
    version: ClassVar = 1
    needs: ClassVar = ("image",)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"dhash": pa.uint64()})

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        images = batch.images(DECODE_SIDE, "L")
        return {"dhash": pa.array([image and dhash(image) for image in images], pa.uint64())}


def dhash(image: Image.Image) -> int:
    """Hash a gray image."""
    levels = np.asarray(image.resize((SIZE + 1, SIZE), Image.Resampling.LANCZOS))
    return int.from_bytes(np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes())
