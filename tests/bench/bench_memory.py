"""Peak memory of `curate filter` on a pool and on one ten times as large, shards of one size."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bench.cached_pool import WORDS
from tests.bench.figure import Figure, peak_memory

SMALL, LARGE = int(os.environ.get("CURATE_BENCH_SAMPLES", "5000")), 10
PER_SHARD = 1000
FILTER = """
import sys
from curate.cli import run
assert run(["filter", sys.argv[1], sys.argv[2], "--set", "image_size.min_side=16"]) == 0
"""


def run(work: Path) -> list[Figure]:
    peaks = []
    for name, samples in (("small", SMALL), ("large", SMALL * LARGE)):
        pool = write_pool(work / name, samples)
        seconds, gib, _ = peak_memory(FILTER, str(pool), str(work / f"{name}-out"))
        peaks.append((samples, gib, seconds))
    detail = ", ".join(f"{samples:,} samples: {gib:.2f} GiB in {seconds:.0f} s" for samples, gib, seconds in peaks)
    return [
        Figure(
            "peak memory of curate filter at 10x the pool", peaks[1][1] / peaks[0][1], "x", at_most=1.2,
            detail=f"{detail}; the largest process, default recipe, shards of {PER_SHARD:,}",
        )
    ]  # fmt: skip


def write_pool(folder: Path, samples: int) -> Path:
    """Noise of 40 pixels with a frame of its own, and a caption: small files, no two alike."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(samples)
    for first in range(0, samples, PER_SHARD):
        with tarfile.open(folder / f"{first // PER_SHARD:05d}.tar", "w") as tar:
            for number in range(first, min(first + PER_SHARD, samples)):
                coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
                file = io.BytesIO()
                coarse.resize((40, 40), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
                caption = " ".join(random.choice(WORDS, 9))
                for suffix, data in (("jpg", file.getvalue()), ("txt", caption.encode())):
                    info = tarfile.TarInfo(f"{number:09d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder
