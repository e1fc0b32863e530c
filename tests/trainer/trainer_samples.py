"""Small real samples for the trainer's tests: coloured JPEGs in shards."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SHARED_DATA = Path(__file__).resolve().parents[2].parent / "shared/data"
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 230), "yellow": (230, 220, 30)}
TEMPLATES = ["a photo of something {c}", "all of it is {c}"]
Members = dict[str, bytes]


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (40, 40), seed: int = 0) -> bytes:
    """A JPEG of one colour under some noise."""
    noise = np.random.default_rng(seed).normal(0, 12, (size[1], size[0], 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_tar(path: Path, samples: Iterable[tuple[str, Members]]) -> None:
    """A shard of samples, each a key with its members by extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, members in samples:
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def colour_samples(count: int, start: int = 0) -> list[tuple[str, Members]]:
    """Samples that name their colour; keys are running numbers."""
    names = list(COLOURS)
    return [
        (
            f"{i:05d}",
            {
                "jpg": jpeg(COLOURS[names[i % 4]], seed=i),
                "txt": TEMPLATES[i % 2].replace("{c}", names[i % 4]).encode(),
            },
        )
        for i in range(start, start + count)
    ]
