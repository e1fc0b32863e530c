"""Metadata as DataComp's, made from a seed, with all that a baseline may stumble over at the edges."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CAPTIONS = (
    "A small red boat on the lake at dawn", "Two dogs run across the wet grass of the park", "Old town, market square",
    "the best price for a used car in your city", "woman wearing a blue hat and a long coat", "My new kitchen table",
    "Ein rotes Haus steht neben einem alten Baum", "Une petite maison au bord de la mer", "El perro corre por la playa",
    "Маленькая лодка на озере", "公园里的两只狗", "東京の夜景", "La casa nella prateria è bella", "IMG_20190412.jpg",
    "1234567 89 4455", "buy now!!!", "photo", "a b c", "an ox", "abc de", "a b cd", "to be or", "", " ", "\n", "?!",
    "red\u00a0boat lake", "red\u00a0boat\u2003lake at\u00a0dawn", "one\x1ftwo three", "line one\nline two\nline three",
    "tab\tseparated words here", "carriage\rreturn in a caption", "zero\u200bwidth space inside", "word\x0bword word",
    "Weihnachten unter dem Baum with the family", "hotel paris france 2019 booking", "🎉 party time 🎉 for all",
    "l'été à la plage with friends", "New York City skyline", "Download free PDF", "  leading and trailing spaces  ",
)  # fmt: skip
SIDES = (199, 200, 201, 600, 603, 66, 67, 1, 1024)
SCORES = (0.28, 0.2799999, 0.2800001, 0.25, 0.2)


def write_metadata(
    folder: Path, rows: int = 1200, files: int = 3, seed: int = 0, captions: Sequence[str] = CAPTIONS, npz: bool = True
) -> Path:
    """Write `files` parquet files of together `rows` rows, and their `.npz`.

    A third of the sizes and of the scores lie on or beside a bound, many scores are equal, sizes have an aspect of
    3 to 1 more or less, and the captions are given or cut out of given ones.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number, count in enumerate(np.full(files, rows // files) + (np.arange(files) < rows % files)):
        uids = [hashlib.md5(f"{seed}/{number}/{n}".encode()).hexdigest() for n in range(count)]
        width, height = _sizes(random, count), _sizes(random, count)
        wide = random.random(count) < 0.1
        width[wide] = 3 * height[wide] + random.integers(-1, 2, wide.sum())
        table = {
            "uid": uids,
            "url": [f"https://example.org/{uid}.jpg" for uid in uids],
            "text": [_caption(random, captions) for _ in range(count)],
            "original_width": width,
            "original_height": height,
            "clip_b32_similarity_score": _scores(random, count),
            "clip_l14_similarity_score": _scores(random, count),
            "face_bboxes": pa.array([[] for _ in range(count)], pa.list_(pa.list_(pa.float64()))),
            "sha256": [hashlib.sha256(f"{n % 900}".encode()).hexdigest() for n in range(count)],
        }
        name = hashlib.md5(f"file {number}".encode()).hexdigest()
        pq.write_table(pa.table(table), folder / f"{name}.parquet", row_group_size=500)
        if npz:
            apart = np.random.default_rng([seed, number])  # so that the rest is the same without
            sizes = {"b32_img": 512, "b32_txt": 512, "l14_img": 768, "l14_txt": 768}
            arrays = {array: apart.standard_normal((count, size)).astype(np.float16) for array, size in sizes.items()}
            np.savez(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]
    return folder


def _sizes(random: np.random.Generator, count: int) -> np.ndarray:
    return np.where(random.random(count) < 0.33, random.choice(SIDES, count), random.integers(120, 2000, count))


def _scores(random: np.random.Generator, count: int) -> np.ndarray:
    """Cosines as CLIP gives them, half of them rounded so that many are equal."""
    smooth = random.normal(0.22, 0.06, count).clip(-1, 1)
    smooth = np.where(random.random(count) < 0.5, smooth.round(3), smooth)
    return np.where(random.random(count) < 0.1, random.choice(SCORES, count), smooth).astype(np.float32)


def _caption(random: np.random.Generator, captions: Sequence[str]) -> str:
    text = captions[random.integers(len(captions))]
    kind = random.random()
    if kind < 0.15:
        return text[: random.integers(0, 12)]
    if kind < 0.3:
        return " ".join(text.split(" ")[: random.integers(1, 5)])
    return f"{text} {CAPTIONS[random.integers(len(CAPTIONS))]}" if kind < 0.4 else text
