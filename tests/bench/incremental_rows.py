"""Made-up columns of samples, the same for the same numbers: one in ten is a copy of one before it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.features.batch import Batch
from curate.features.minhash import Minhash
from curate.shards import Sample
from filters._views import VIEWS
from tests.bench.caption_pool import web_captions

BLOCK = 10_000
COPIES = 0.1


def rows(kind: str, first: int, count: int) -> pa.Table:
    """Rows `first` to `first + count` of an endless pool; both are multiples of a block."""
    os.environ.setdefault("CURATE_BENCH_DATA", str(Path("../shared/data").absolute()))
    blocks = [_block(kind, number) for number in range(first // BLOCK, (first + count) // BLOCK)]
    table = pa.concat_tables(blocks)
    uids = pa.array([f"{n:032x}" for n in range(first, first + count)])
    return table.add_column(0, "row", pa.array(np.arange(count))).add_column(1, "uid", uids)


def _block(kind: str, number: int) -> pa.Table:
    random = np.random.default_rng(number)
    own = np.arange(number * BLOCK, (number + 1) * BLOCK)
    of = np.where(random.random(BLOCK) < COPIES, random.integers(0, own + 1), own)  # the sample that each is a copy of
    if kind == "captions":
        captions = web_captions(BLOCK, seed=number)
        samples = [Sample("k", 0, 0, text=caption) for caption in captions]
        signed = Minhash().measure(Batch("0.tar", samples))
        return pa.table({"caption": pa.array(captions)} | {n: pa.array(c) for n, c in signed.items()})
    if kind == "exact":
        return pa.table({"sha256": pa.array([f"{n * 0x9E3779B97F4A7C15 % 2**64:064x}"[::-1] for n in of.tolist()])})
    size = pa.array(np.full(BLOCK, 500, np.int32))
    whole = _scattered(of)
    if kind == "hashes":
        return pa.table({"phash": whole, "width": size, "height": size})
    # A copy has its original's views and thumbnail but for a few bits and levels.
    views = _scattered(of[:, None] * 128 + np.arange(VIEWS)) ^ (np.uint64(1) << (own % 64).astype(np.uint64))[:, None]
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 32), np.uint8)
    pictures = noise[of % 64] // 2 + noise[(of // 64) % 64] // 4 + noise[(of // 4096) % 64] // 4
    levels = _smooth(pictures.astype(np.float32)).astype(np.uint8).reshape(BLOCK, -1)
    return pa.table(
        {"view_hashes": _lists(views), "thumbnail": _lists(levels.view("<u8")), "width": size, "height": size}
    )


def _scattered(numbers: np.ndarray) -> np.ndarray:
    from filters._shingles import mix

    return mix(numbers.astype(np.uint64) + np.uint64(1))


def _smooth(images: np.ndarray) -> np.ndarray:
    for axis in (1, 2):
        images = (images + np.roll(images, 1, axis) + np.roll(images, 2, axis) + np.roll(images, 3, axis)) / 4
    return (images - images.min()) * (255 / (images.max() - images.min()))


def _lists(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])
