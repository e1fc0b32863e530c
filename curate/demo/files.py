"""Writes the image files of the mini-web: real JPEG, PNG and WebP files, with the planted damage."""

from __future__ import annotations

import io
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from curate.demo.plan import Planned
from curate.demo.scenes import render

_BATCH = 64  # pairs per task: long enough to hide the cost of handing it over
_CROP = (0.02, 0.08)  # cut off per side, share of that side


def encode(picture: Image.Image, extension: str, quality: int) -> bytes:
    """The picture as file bytes; `quality` 1 to 95, ignored by PNG."""
    buffer = io.BytesIO()
    if extension == "png":
        picture.save(buffer, "PNG", compress_level=1)
    elif extension == "webp":
        picture.save(buffer, "WEBP", quality=quality, method=0)
    else:
        picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _quality(item: Planned) -> int:
    """The original's quality: the same for the original and its exact copy, so that the bytes agree."""
    return 62 + item.scene.number * 7 % 33


def image_bytes(item: Planned) -> bytes:
    """The bytes that the server gives for this pair's URL."""
    rng = np.random.default_rng((item.scene.seed, item.number, 13))
    if item.defect == "blank_image":
        level = tuple(int(v) for v in rng.integers(0, 256, 3))
        return encode(Image.new("RGB", (item.scene.width, item.scene.height), level), item.format, 90)
    picture = render(item.scene)
    if item.defect in ("none", "exact_copy"):
        return encode(picture, item.format, _quality(item))
    if item.defect == "reencoded":
        return encode(picture, "jpg", int(rng.integers(32, 55)))
    if item.defect == "resized":
        scale = float(rng.uniform(0.55, 0.85))
        size = (int(picture.width * scale), int(picture.height * scale))
        return encode(picture.resize(size, Image.Resampling.LANCZOS), "jpg", _quality(item))
    if item.defect == "cropped":
        left, top, right, bottom = (float(v) for v in rng.uniform(*_CROP, 4))
        w, h = picture.size
        box = (int(left * w), int(top * h), int(w - right * w), int(h - bottom * h))
        return encode(picture.crop(box), "jpg", _quality(item))
    if item.defect == "tiny_image":
        side = int(rng.integers(16, 41))
        picture.thumbnail((side, side))
    whole = encode(picture, item.format, _quality(item))
    if item.defect == "truncated_file":
        return whole[: int(len(whole) * rng.uniform(0.25, 0.7))]
    return whole


def _write_batch(items: list[Planned], folder: Path) -> list[int]:
    return [(folder / item.path.lstrip("/")).write_bytes(image_bytes(item)) for item in items]


def write_images(plan: list[Planned], folder: Path, workers: int) -> list[int]:
    """Writes all files but those of dead links; returns the sizes in bytes, in plan order (dead: 0)."""
    for parent in {(folder / item.path.lstrip("/")).parent for item in plan}:
        parent.mkdir(parents=True, exist_ok=True)
    alive = [item for item in plan if item.defect != "dead_link"]
    batches = [alive[start : start + _BATCH] for start in range(0, len(alive), _BATCH)]
    write = partial(_write_batch, folder=folder)
    if workers <= 1:
        sizes = [size for batch in batches for size in write(batch)]
    else:
        # forkserver: safe from a process that has threads, and it imports this module only once
        context = multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            sizes = [size for done in pool.map(write, batches) for size in done]
    by_number = dict(zip((item.number for item in alive), sizes, strict=True))
    return [by_number.get(item.number, 0) for item in plan]
