"""Colour hash: how much of an image is black, gray, and of each hue."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.features.batch import Batch
from curate.features.contract import Feature
from curate.features.phash import DECODE_SIDE

BITS = 3  # of each of 14 shares
HUES = np.linspace(0, 255, 7)


class Colorhash(Feature):
    """`colorhash`: 42 bits as uint64, most significant bit first as in `str(imagehash.colorhash(image))`.

    Three bits each for the shares of black, of gray, and of six hues faint and six hues bright, as imagehash
    defines it, on the scaled decode. It knows nothing of shapes: equal hashes are a hint, near ones are none.
    """

    name: ClassVar = "colorhash"
    version: ClassVar = 1
    needs: ClassVar = ("image",)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"colorhash": pa.uint64()})

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        images = batch.images(DECODE_SIDE, "RGB")
        return {"colorhash": pa.array([image and colorhash(image) for image in images], pa.uint64())}


def colorhash(image: Image.Image) -> int:
    """Hash an RGB image."""
    intensity = np.asarray(image.convert("L"))
    hue, saturation, _ = np.moveaxis(np.asarray(image.convert("HSV")), 2, 0)
    black, gray = intensity < 256 // 8, saturation < 256 // 3
    colour = ~black & ~gray
    faint, bright = colour & (saturation < 256 * 2 // 3), colour & (saturation > 256 * 2 // 3)
    shares = [black.mean(), (~black & gray).mean()]
    for part in (faint, bright):
        shares += (np.histogram(hue[part], HUES)[0] * 1.0 / max(1, int(colour.sum()))).tolist()
    value = 0
    for share in shares:
        eighths = min(2**BITS - 1, int(share * 2**BITS))
        value = value << BITS | (eighths >= 4) << 2 | (eighths >= 2) << 1 | eighths % 2  # imagehash's own code
    return value
