"""Does the trainer wait for its data? Its step rate on shards, against the rate on batches that lie ready in memory.

Both train `tiny` with one thread, in turn, on photos of 500 x 375 pixels. Cached is how `tiny` trains; the stream has
one decoding process, so that on two cores the training still has one for itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.bench.figure import Figure
from tests.bench.photo_pool import photo_pool, photos
from trainer.data import Batch, DataReport
from trainer.distributed import World
from trainer.family import get_family
from trainer.scales import SCALES, Scale
from trainer.shards import list_shards
from trainer.train import Training

STEPS = 16  # of a run; the first few, in which workers start and memory fills, do not count
SKIPPED = 4
ROUNDS = 3


def run(work: Path) -> list[Figure]:
    """The share of the rate that is left when the data comes through the pipeline."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = photo_pool(work / "pool", photos(), shards=4)
    cached = dataclasses.replace(SCALES["tiny"], batch_size=128, samples_seen=128 * STEPS, log_steps=1)
    streamed = dataclasses.replace(cached, cache_bytes=0, workers=1)
    try:
        return [
            _figure("data pipeline, decoded once and kept in memory", cached, pool, work),
            _figure("data pipeline, streamed from the shards", streamed, pool, work),
        ]
    finally:
        torch.set_num_threads(threads)


class Ready:
    """A few batches as finished tensors, again and again."""

    def __init__(self, batches: list[Batch]) -> None:
        self.made, self.report = batches, DataReport()

    def batches(self, scale: Scale, seed: int, start: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        for step in range(start, scale.steps):
            yield self.made[step % len(self.made)]


def _figure(name: str, scale: Scale, pool: Path, work: Path) -> Figure:
    real = _training(scale, pool)
    few = dataclasses.replace(scale, samples_seen=4 * scale.batch_size)
    ready: Any = Ready(list(real.data.batches(few, seed=1, start=0)))
    rates: dict[str, float] = {"ready": 0.0, "real": 0.0}
    for number in range(ROUNDS):  # in turn, so that both meet the same noise
        for kind in rates:
            training = _training(scale, pool, real.data if kind == "real" else ready)
            folder = work / f"{scale.workers}-{scale.cache_bytes}-{kind}-{number}"
            folder.mkdir()
            rate = _rate(training, folder)
            rates[kind] = max(rates[kind], rate)
    detail = f"{rates['real']:,.0f} samples/s against {rates['ready']:,.0f}"
    return Figure(name, rates["real"] / rates["ready"], "x", at_least=0.9, detail=detail)


def _training(scale: Scale, pool: Path, data: Any = None) -> Training:
    world, shards = World(0, 1, torch.device("cpu")), list_shards(str(pool))
    if data is None:
        return Training(get_family("clip"), scale, 0, shards, world)
    training = Training(get_family("clip"), dataclasses.replace(scale, cache_bytes=0), 0, shards, world)
    training.scale, training.data = scale, data  # opening a stream costs nothing, so nothing is decoded again
    return training


def _rate(training: Training, folder: Path) -> float:
    """Samples per second after the first steps."""
    records: list[dict[str, Any]] = []
    training.run(folder, records.append)
    first, last = records[SKIPPED - 1], records[-1]
    return (last["samples_seen"] - first["samples_seen"]) / (last["seconds"] - first["seconds"])
