"""A pool of millions of samples as its feature cache knows it: the cache's own layout, and no image behind it.

The shards are empty files, so whatever opened one would fail: decisions have only the columns.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.engines import open_engine
from curate.features.contract import Feature
from curate.measure import ERROR, ShardTask, shard_tasks, write_sidecar
from curate.pool import open_pool
from curate.recipe import load_recipe

RECIPE = """
name: changed
features:
  clip: {{model: {model}}}
filters:
  - image_size: {{min_side: 128}}
  - aspect_ratio
  - image_quality
  - caption_rules
  - language: {{keep: [en], min_probability: 0.5}}
  - exact_duplicates
  - clip_score: {{keep_fraction: 0.3}}
"""
WORDS = [
    *("the", "of", "a", "and", "in", "old", "new", "small", "large", "red", "blue", "green", "photo", "picture"),
    *("view", "street", "house", "garden", "river", "bridge", "dog", "cat", "train", "market", "table", "window"),
    *("morning", "evening", "light", "water", "mountain", "beach", "city", "people", "woman", "man", "child", "sale"),
    *("holding", "beside", "with", "free", "shipping", "black", "white", "vintage", "design", "home", "kitchen"),
    *("leather", "cotton", "summer", "winter", "official"),
]
LANGUAGES = ("en", "de", "fr", "es", "ru", "zh", "ja")
HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def write_cached_pool(folder: Path, shards: int, rows: int, workers: int = 2) -> tuple[Path, Path]:
    """Make a pool of `shards` x `rows` samples with cached features; returns the pool and a recipe for it."""
    pool, model = folder / "pool", folder / "clip"
    pool.mkdir(parents=True)
    model.mkdir()
    (model / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 4}, "preprocess_cfg": {}}))
    (model / "open_clip_model.safetensors").write_bytes(b"stands for weights")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(model=model))
    for number in range(shards):
        (pool / f"{number:05d}.tar").touch()
    tasks = shard_tasks(open_pool(str(pool)), load_recipe(str(recipe)).features)
    engine = open_engine("local", workers)
    for _ in engine.map(_Fill(rows), tasks):
        pass
    engine.close()
    return pool, recipe


class _Fill:
    """Writes a shard's sidecars."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __call__(self, task: ShardTask) -> int:
        number = int(task.shard.name.removesuffix(".tar"))
        columns = _columns(np.random.default_rng(number), number, self.rows)
        for folder, feature in task.features:
            write_sidecar(task, folder, feature, [_batch(feature, columns)], f"{number:032x}")
        return number


def _batch(feature: Feature, columns: dict[str, pa.Array]) -> pa.RecordBatch:
    schema = feature.arrow_schema()
    arrays = [columns[field.name].cast(field.type) for field in schema]
    needs_image = feature.name in ("image_info", "image_stats", "clip")
    errors = columns[ERROR] if needs_image else pa.nulls(len(columns[ERROR]), pa.string())
    return pa.record_batch([*arrays, errors], schema=schema.append(pa.field(ERROR, pa.string())))


def _columns(random: np.random.Generator, number: int, rows: int) -> dict[str, pa.Array]:
    """Values as a crawl's: log-normal sizes, one image in eight a copy, captions of 2 to 16 words, one error in 200."""
    long = np.exp(random.normal(6.2, 0.6, rows)).clip(16, 8000)
    ratio = np.exp(np.abs(random.normal(0, 0.45, rows)))
    sizes = np.stack([long, (long / ratio).clip(8)]).astype(np.int32)
    words = random.integers(2, 17, rows)
    ends = np.cumsum(words)
    picked = pa.array(WORDS).take(pa.array(random.integers(0, len(WORDS), ends[-1])))
    lists = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int32()), picked)
    captions = pa.compute.binary_join(lists, " ")
    failed = random.random(rows) < 0.005
    copies = random.integers(0, 4, (rows, 32), np.uint8) * (np.arange(32) < 9)  # few distinct ones, met in all shards
    distinct = random.integers(0, 256, (rows, 32), np.uint8)
    digest = np.where((random.random(rows) < 0.125)[:, None], copies, distinct)
    offsets = np.arange(rows, dtype=np.int64) * 40_960
    stats = {"brightness": (0.5, 0.2), "contrast": (0.2, 0.08), "sharpness": (300, 200), "entropy": (6.5, 1.2)}
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.full(rows * 4, 0.5, np.float16)), 4)
    values = {
        "uid": _hex(random.integers(0, 256, (rows, 16), np.uint8)),
        "key": pa.array([f"{number:05d}{row:04d}" for row in range(rows)]),
        "offset": pa.array(offsets),
        "length": pa.array(np.full(rows, 40_960)),
        "image_offset": pa.array(offsets + 512),
        "image_size": pa.array(random.integers(9_000, 39_000, rows)),
        "sha256": _hex(digest),
        "width": pa.array(sizes[0], mask=failed),
        "height": pa.array(sizes[1], mask=failed),
        "format": pa.array(["JPEG"] * rows, mask=failed),
        "mode": pa.array(["RGB"] * rows, mask=failed),
        "caption": captions,
        "caption_length": pa.compute.utf8_length(captions),
        "caption_words": pa.array(words),
        "caption_alpha": pa.array(random.uniform(0.4, 1, rows).clip(0, 0.98)),
        "language": pa.array(LANGUAGES).take(pa.array(random.integers(-8, 7, rows).clip(0))),
        "language_probability": pa.array(random.uniform(0.3, 1, rows)),
        "clip_image": vectors,
        "clip_text": vectors,
        "clip_score": pa.array(random.normal(0.22, 0.06, rows).astype(np.float32), mask=failed),
        ERROR: pa.array(["truncated image: 1812 bytes are missing"] * rows, mask=~failed),
    }
    return values | {n: pa.array(random.normal(*at, rows).clip(0.01), mask=failed) for n, at in stats.items()}


def _hex(digest: np.ndarray) -> pa.Array:
    """Bytes (rows, n) as strings of 2n hex digits."""
    text = np.stack([HEX[digest >> 4], HEX[digest & 15]], axis=-1).reshape(len(digest), -1)
    ends = np.arange(len(text) + 1, dtype=np.int32) * text.shape[1]
    return pa.StringArray.from_buffers(len(text), pa.py_buffer(ends), pa.py_buffer(text.tobytes()))


if __name__ == "__main__":
    write_cached_pool(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
