"""Backgrounds of the demo's scenes: coloured, textured, lit unevenly, never twice the same.

The uneven light is what keeps two scenes of the same object apart for a perceptual hash, as the surroundings
do in real photos.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BACKGROUNDS = ("plain", "striped", "checkered", "dotted", "cloudy")
_NOISE_TILE = 512  # pixels; scenes are smaller than half of it, so offsets vary


@cache
def _noise_tile() -> NDArray[np.int16]:
    noise = np.random.default_rng(0).normal(0.0, 1.0, (_NOISE_TILE, _NOISE_TILE, 3))
    return np.clip(noise * 32, -127, 127).astype(np.int16)


def _light(rng: np.random.Generator, width: int, height: int) -> NDArray[np.int16]:
    """Uneven light: a coarse random field, smoothly enlarged; about ±50 levels."""
    cells = int(rng.integers(4, 7))
    coarse = np.clip(rng.normal(128, 38, (cells, cells)), 0, 255).astype(np.uint8)
    field = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(field, dtype=np.int16) - 128


def _pattern(kind: str, rng: np.random.Generator, width: int, height: int) -> NDArray[np.int16]:
    """The texture in levels around zero; zero everywhere for a plain background."""
    y, x = np.ogrid[0:height, 0:width]
    period = float(rng.uniform(14, 34))
    strength = int(rng.integers(8, 17))
    if kind == "striped":
        angle = rng.uniform(0, np.pi)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period))
        return (np.sign(wave) * strength).astype(np.int16)
    if kind == "checkered":
        cells = (x // period).astype(np.int16) + (y // period).astype(np.int16)
        return ((cells % 2) * 2 - 1).astype(np.int16) * np.int16(strength)
    if kind == "dotted":
        dots = np.hypot(x % period - period / 2, y % period - period / 2) < period / 3.2
        return (dots * strength * 2 - strength).astype(np.int16)
    if kind == "cloudy":
        coarse = rng.integers(0, 256, (12, 12), dtype=np.uint8)
        cloud = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        return ((np.asarray(cloud, dtype=np.int16) - 128) * strength) // 72
    return np.zeros((height, width), np.int16)


def draw_background(kind: str, rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A background of the given kind, `width` × `height` pixels, RGB."""
    base = rng.integers(95, 170, 3).astype(np.int16)
    grey = _light(rng, width, height) + _pattern(kind, rng, width, height)
    top, left = (int(v) for v in rng.integers(0, _NOISE_TILE - max(width, height), 2))
    grain = _noise_tile()[top : top + height, left : left + width]
    pixels = base + grey[:, :, None] + grain // int(rng.integers(4, 12))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
