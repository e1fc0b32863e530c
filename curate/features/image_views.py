"""Hashes of an image, of windows and parts of it and of it turned, and the thumbnail they are taken from."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.features.batch import Batch
from curate.features.contract import Feature
from curate.features.phash import DECODE_SIDE, KEPT, SIZE
from filters._views import CUTS, FLAT, PART_VIEWS, TURNS, VIEWS, WINDOW_VIEWS

WORDS = SIZE * SIZE // 8
FLAT_SPREAD = 1.5  # gray levels: a view whose low frequencies have less amplitude is flat
_FINE = 16  # points to a pixel when a window is drawn to full size


class ImageViews(Feature):
    """`view_hashes`: 81 perceptual hashes as uint64; `thumbnail`: 32 x 32 gray pixels, eight to a uint64.

    The hashes are those of the whole image (its `phash`), of it mirrored and turned (7), of two thirds of it (4)
    and of 69 windows with up to 11 % cut off a side; `filters/_views.py` lists them. All come from the thumbnail's
    cosine transform (Zauner 2010): mirroring changes the signs of its terms, a quarter turn swaps them, and cutting
    a window is a product with a matrix, so that together they cost less than the decode. A view without anything to
    see has no hash but its brightness, 0 to 63. The thumbnail's bytes are the pixels, row by row.
    """

    name: ClassVar = "image_views"
    version: ClassVar = 2
    needs: ClassVar = ("image",)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"view_hashes": pa.list_(pa.uint64(), VIEWS), "thumbnail": pa.list_(pa.uint64(), WORDS)})

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        grays, real = batch.grays(DECODE_SIDE, SIZE, Image.Resampling.LANCZOS)
        values = {"view_hashes": view_hashes(grays), "thumbnail": words(grays)}
        mask = pa.array(~real)
        return {
            name: pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1], mask=mask)
            for name, flat in values.items()
        }


def words(grays: np.ndarray) -> np.ndarray:
    """Pixels, uint8 (n, 32, 32), as uint64 (n, 128); little-endian, whatever the machine."""
    return np.ascontiguousarray(grays).reshape(len(grays), -1).view("<u8").astype(np.uint64)


def view_hashes(grays: np.ndarray) -> np.ndarray:
    """Hash the views of gray images: uint8 (n, 32, 32) to uint64 (n, views)."""
    cosines, across, down = _plan()
    count = len(grays)
    half = cosines @ grays.astype(np.float32)
    cut = half @ cosines.T
    low = cut.reshape(count, len(CUTS), KEPT, len(CUTS), KEPT)[:, down, :, across, :]  # (views, n, down, across)
    low = low.transpose(1, 0, 2, 3)
    return hashes(np.concatenate([_turned(low[:, 0]), low[:, 1:]], axis=1))


def hashes(low: np.ndarray) -> np.ndarray:
    """Which of the low frequencies are above their median: float (n, views, 8, 8) to uint64 (n, views)."""
    flat = np.ascontiguousarray(low).reshape(*low.shape[:2], -1)
    middle = np.partition(flat, (31, 32), axis=2)[:, :, 31:33].sum(axis=2, keepdims=True) / 2
    found = np.packbits(flat > middle, axis=2).view(">u8")[..., 0].astype(np.uint64)
    spread = np.sqrt((flat[:, :, 1:] ** 2).sum(axis=2)) / (SIZE * SIZE * 2)
    brightness = (flat[:, :, 0] / (SIZE * SIZE * 16) + 0.1).clip(0, FLAT - 1).astype(np.uint64)
    return np.where(spread < FLAT_SPREAD, brightness, found)


def _turned(low: np.ndarray) -> np.ndarray:
    """The low frequencies (n, 8, 8) of images turned in every way: (n, turns, 8, 8)."""
    sign = (-1) ** np.arange(KEPT)
    views = []
    for swapped, across, down in TURNS:
        view = low.transpose(0, 2, 1) if swapped else low
        view = view * sign if across < 0 else view
        views.append(view * sign[:, None] if down < 0 else view)
    return np.stack(views, axis=1)


@cache
def _plan() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What takes a line of pixels to the low frequencies of each cut of it, (cuts * 8, 32), and the views' cuts."""
    cosines = np.concatenate([_cosines(*cut) for cut in CUTS]).astype(np.float32)
    views = ((0, 0), *PART_VIEWS, *WINDOW_VIEWS)
    return cosines, np.array([across for across, _ in views]), np.array([down for _, down in views])


def _cosines(begin: float, end: float) -> np.ndarray:
    """The matrix (8, 32) that draws a cut of a line to the length of the whole and takes its low frequencies."""
    at = (np.arange(SIZE * _FINE) + 0.5) / (SIZE * _FINE) * (1 - begin - end) + begin
    at = (at * SIZE - 0.5).clip(0, SIZE - 1)
    low = np.minimum(at.astype(int), SIZE - 2)
    drawn = np.zeros((SIZE, SIZE))
    row = np.repeat(np.arange(SIZE), _FINE)
    np.add.at(drawn, (row, low), (1 - (at - low)) / _FINE)
    np.add.at(drawn, (row, low + 1), (at - low) / _FINE)
    if begin == end == 0:
        drawn = np.eye(SIZE)
    frequency = np.arange(KEPT)[:, None]
    return 2 * np.cos(np.pi * (2 * np.arange(SIZE) + 1) * frequency / (2 * SIZE)) @ drawn
