"""How bright, contrasty, sharp and busy an image is, told from a small gray copy."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.features.batch import Batch
from curate.features.contract import Feature

SIZE = 64
DECODE_SIDE = 64


class ImageStats(Feature):
    """Measured on luma squeezed to 64 x 64 pixels, so that images of all sizes compare.

    `brightness`: mean, 0 (black) to 1 (white). `contrast`: standard deviation, 0 to 0.5. `sharpness`:
    variance of the Laplacian on a 0-255 scale (Pech-Pacheco et al. 2000), from 0 up; below about 30 is
    blurred. `entropy`: of the 256-bin histogram, 0 to 8 bits.
    """

    name: ClassVar = "image_stats"
    version: ClassVar = 2
    needs: ClassVar = ("image",)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({name: pa.float32() for name in ("brightness", "contrast", "sharpness", "entropy")})

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        grays, real = batch.grays(DECODE_SIDE, SIZE, Image.Resampling.BOX)
        values = image_stats(grays)
        return {name: pa.array(values[name].astype(np.float32), mask=~real) for name in self.arrow_schema().names}


def image_stats(grays: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of gray images: uint8 (n, h, w) to one float64 (n,) per name."""
    levels = grays.astype(np.float32)
    flat = levels.reshape(len(grays), -1)
    middle = levels[:, 1:-1, 1:-1]
    around = levels[:, :-2, 1:-1] + levels[:, 2:, 1:-1] + levels[:, 1:-1, :-2] + levels[:, 1:-1, 2:]
    return {
        "brightness": flat.mean(axis=1, dtype=np.float64) / 255,
        "contrast": flat.std(axis=1, dtype=np.float64) / 255,
        "sharpness": (around - 4 * middle).reshape(len(grays), -1).var(axis=1, dtype=np.float64),
        "entropy": _entropy(grays),
    }


def _entropy(grays: np.ndarray) -> np.ndarray:
    """Shannon entropy in bits of each image's histogram: uint8 (n, h, w) to float64 (n,)."""
    count = len(grays)
    rows = np.arange(count, dtype=np.int64)[:, None] * 256
    bins = np.bincount((grays.reshape(count, -1) + rows).ravel(), minlength=count * 256).reshape(count, 256)
    share = bins / np.maximum(bins.sum(axis=1, keepdims=True), 1)
    return -np.where(share > 0, share * np.log2(np.where(share > 0, share, 1)), 0).sum(axis=1)
