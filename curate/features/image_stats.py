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
    counts, levels, pixels = _histograms(grays), np.arange(256), grays.shape[1] * grays.shape[2]
    mean = counts @ levels / pixels
    share = counts / pixels
    return {
        "brightness": mean / 255,
        "contrast": np.sqrt(counts @ levels**2 / pixels - mean**2) / 255,
        "sharpness": _variance(_laplacians(grays)),
        "entropy": 0 - (share * np.log2(np.where(share > 0, share, 1))).sum(axis=1),
    }


def _histograms(grays: np.ndarray) -> np.ndarray:
    """How many pixels have each level: uint8 (n, h, w) to int64 (n, 256)."""
    count = len(grays)
    rows = np.arange(count)[:, None, None] * 256
    return np.bincount((grays + rows).ravel(), minlength=count * 256).reshape(count, 256)


def _laplacians(grays: np.ndarray) -> np.ndarray:
    """The four neighbours less four times the middle: uint8 (n, h, w) to int16 (n, (h - 2) * (w - 2))."""
    levels = grays.astype(np.int16)
    out = levels[:, :-2, 1:-1] + levels[:, 2:, 1:-1]
    out += levels[:, 1:-1, :-2]
    out += levels[:, 1:-1, 2:]
    out -= 4 * levels[:, 1:-1, 1:-1]
    return out.reshape(len(out), out.shape[1] * out.shape[2])


def _variance(values: np.ndarray) -> np.ndarray:
    """Variance of each row: int16 (n, m) to float64 (n,). The sums are of whole numbers, so no digit is lost."""
    real = values.astype(np.float64)
    mean = values.sum(axis=1, dtype=np.int64) / values.shape[1]
    return np.einsum("ij,ij->i", real, real) / values.shape[1] - mean**2
