"""CLIP scores on the CPU: the whole measuring pass of `clip` against the bare model on tensors that are ready.

ViT-B-32 as open_clip builds it, with random weights: how fast it is does not depend on them. Both sides are two
processes of one thread each and batches of one size; loading the model, once per process, is outside both times.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

from curate import openclip
from curate.features.clip import Clip
from curate.features.index import Index
from curate.measure import BATCH, ShardTask, measure_shard, one_thread, shard_tasks
from curate.pool import open_pool
from tests.bench.figure import Figure
from tests.bench.photo_pool import captions, photo_pool, photos

ARCHITECTURE = "ViT-B-32"
WORKERS = 2
BATCHES = 1  # per process and round
ROUNDS = 2
_barrier: Barrier


def run(work: Path) -> list[Figure]:
    checkpoint = _checkpoint(work / "random.pt")
    shards = WORKERS * (ROUNDS + 1)  # each process measures one untimed
    pool = open_pool(str(photo_pool(work / "pool", photos()[: BATCH * BATCHES], shards)))
    tasks = shard_tasks(pool, (Index(), Clip(model=ARCHITECTURE, pretrained=str(checkpoint))))
    context = get_context("spawn")
    barrier = context.Barrier(WORKERS)
    with ProcessPoolExecutor(WORKERS, context, initializer=_start, initargs=(barrier,)) as processes:
        jobs = [(tasks[number::WORKERS], str(checkpoint)) for number in range(WORKERS)]
        timed = list(processes.map(_both, *zip(*jobs, strict=True)))
    samples = BATCH * BATCHES * WORKERS
    ours, bare = (min(max(each[side][turn] for each in timed) for turn in range(ROUNDS)) for side in (0, 1))
    detail = f"{samples / ours:.1f}/s against {samples / bare:.1f}/s, {ARCHITECTURE}, random weights"
    return [
        Figure("CLIP scores on the CPU, against the bare model on ready tensors", bare / ours, "x", 0.9, None, detail)
    ]


def _start(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier
    one_thread()
    import torch

    torch.set_num_threads(1)


def _both(tasks: list[ShardTask], checkpoint: str) -> tuple[list[float], list[float]]:
    """Seconds of this process in each round: the measuring pass, and the bare model."""
    measure_shard(tasks[0])
    bare = _bare(checkpoint)
    bare()
    ours_seconds, bare_seconds = [], []
    for task in tasks[1:]:
        ours_seconds.append(_timed(lambda task=task: measure_shard(task)))
        bare_seconds.append(_timed(bare))
    return ours_seconds, bare_seconds


def _timed(work: Callable[[], object]) -> float:
    """Seconds of some work that all processes begin together."""
    _barrier.wait()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _bare(checkpoint: str) -> Callable[[], None]:
    """A function that runs both towers over as many samples as a shard has."""
    import open_clip
    import torch

    model = openclip.load(ARCHITECTURE, checkpoint).network
    pixels = torch.randn(BATCH, 3, 224, 224)
    tokens = open_clip.get_tokenizer(ARCHITECTURE)(captions()[:BATCH])

    def forward() -> None:
        with torch.inference_mode():
            for _ in range(BATCHES):
                model.encode_image(pixels)
                model.encode_text(tokens)

    return forward


def _checkpoint(path: Path) -> Path:
    import open_clip
    import torch

    torch.manual_seed(0)
    torch.save(open_clip.create_model(ARCHITECTURE).state_dict(), path)
    return path
