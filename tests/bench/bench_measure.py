"""Every cheap feature of a pool against only decoding its images with Pillow at full size, two processes each."""

from __future__ import annotations

import io
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from curate.engines.local import LocalEngine
from curate.features import feature_class
from curate.measure import measure_shard, shard_tasks
from curate.pool import open_pool
from curate.shards import read_samples
from tests.bench.figure import Figure, best_of
from tests.bench.floor import decode_all
from tests.bench.photo_pool import photo_pool, photos

FEATURES = ("index", "sha256", "image_info", "phash", "image_stats", "caption", "language", "minhash")
WORKERS = 2
ROUNDS = 3


def run(work: Path) -> list[Figure]:
    images = photos()
    return [
        _against_decoding(work, "JPEG shards", images, shards=40, bound=1.0),
        _against_decoding(work, "2000 x 1500 JPEGs", _large(images[:80]), shards=16),
        _against_decoding(work, "PNG and WebP shards", _others(images[:200]), shards=12),
    ]


def measure(pool: Path, names: tuple[str, ...] = FEATURES) -> int:
    """Measure features of a whole pool that has none yet, processes and all; how many samples it has."""
    shutil.rmtree(pool / "_features", ignore_errors=True)
    engine = LocalEngine(WORKERS)
    tasks = shard_tasks(open_pool(str(pool)), [feature_class(name)() for name in names])
    reports = list(engine.map(measure_shard, tasks))
    engine.close()
    return sum(report.samples for report in reports)


def _against_decoding(work: Path, what: str, images: list[bytes], shards: int, bound: float | None = None) -> Figure:
    pool = photo_pool(work / what.replace(" ", "-"), images, shards)
    paths = [str(path) for path in sorted(pool.glob("*.tar"))]
    places = [(s.image_offset, len(s.image or b"")) for s in read_samples(paths[0])]
    ours, floor = best_of(ROUNDS, lambda: measure(pool), lambda: _decode(paths, places))
    count = len(images) * shards
    detail = f"{count:,} samples: {count / ours:,.0f}/s against {count / floor:,.0f}/s"
    return Figure(
        f"image and text features over {what}, against only decoding them", floor / ours, "x", bound, detail=detail
    )


def _decode(paths: list[str], places: list[tuple[int, int]]) -> None:
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        list(pool.map(decode_all, paths, [places] * len(paths)))


def _large(images: list[bytes]) -> list[bytes]:
    return [_encoded(Image.open(io.BytesIO(data)).resize((2000, 1500)), "JPEG") for data in images]


def _others(images: list[bytes]) -> list[bytes]:
    return [_encoded(Image.open(io.BytesIO(data)), "PNG" if n % 2 else "WEBP") for n, data in enumerate(images)]


def _encoded(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, quality=85)
    return out.getvalue()
