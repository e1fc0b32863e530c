"""Measure a model's features on a GPU: worker processes decode, this process feeds the model.

The other features are measured by `measure_shard` as ever; this fills what it leaves out. It needs their `index`
feature, which says where in a shard each batch lies, so that any worker can read any batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa

from curate.errors import WorkError
from curate.features.batch import Batch
from curate.features.contract import Feature, GpuFeature
from curate.measure import (
    ShardReport,
    ShardTask,
    cached,
    one_thread,
    read_features,
    sample_errors,
    with_errors,
    write_sidecar,
)
from curate.shards import samples_in

BATCH = 256
AHEAD = 4
"""Batches decoded ahead, per worker."""


@dataclass(frozen=True)
class Slice:
    """Where a batch lies: a shard by number, its bytes, its samples, and whether it is the shard's last."""

    shard: int
    start: int
    end: int
    samples: int
    last: bool


@dataclass(frozen=True)
class Batches:
    """Prepared batches by number: what torch's loader calls a map-style dataset."""

    tasks: Sequence[ShardTask]
    slices: Sequence[Slice]
    feature: Feature
    preprocess: dict[str, Any]

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, number: int) -> tuple[Slice, Any, list[str | None], int]:
        part = self.slices[number]
        task = self.tasks[part.shard]
        data = task.pool.fs.cat_file(task.pool.path(task.shard.name), start=part.start, end=part.end)
        batch = Batch(task.shard.name, samples_in(data, part.start))
        if len(batch) != part.samples:
            raise WorkError(f"{task.shard.name} changed while it was measured; run the command again")
        inputs = cast(GpuFeature, self.feature).prepare(batch, self.preprocess)
        return part, inputs, sample_errors(self.feature, batch), len(batch.decoded)


def measure_on_gpu(
    tasks: Sequence[ShardTask], feature: Feature, workers: int, device: str | None = None
) -> Iterator[ShardReport]:
    """Measure one feature of shards that lack it; yields a report per shard, in pool order of each kind."""
    from torch.utils.data import DataLoader

    folder = feature.folder
    missing, digests = [], []
    for task in tasks:
        if (fact := cached(task, folder)) is not None:
            yield ShardReport(task.shard.name, fact["digest"], fact["samples"], (), 0, 0.0)
            continue
        missing.append(task)
        digests.append(cast(dict, cached(task, task.features[0][0]))["digest"])
    if not missing:
        return
    halves = cast(GpuFeature, feature)
    model = halves.load(device)
    slices = [part for number, task in enumerate(missing) for part in _slices(number, task)]
    loader = DataLoader(
        cast(Any, Batches(missing, slices, feature, model.preprocess)),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        multiprocessing_context="spawn",
        pin_memory=model.device.type == "cuda",
        worker_init_fn=_start_worker,
    )
    parts: list[pa.RecordBatch] = []
    decoded, began = 0, time.perf_counter()
    for part, inputs, errors, images in loader:
        parts.append(with_errors(feature, halves.encode(model, inputs), errors))
        decoded += images
        if part.last:
            task = missing[part.shard]
            write_sidecar(task, folder, feature, parts, digests[part.shard])
            samples = sum(len(rows) for rows in parts)
            seconds = time.perf_counter() - began
            yield ShardReport(task.shard.name, digests[part.shard], samples, (feature.name,), decoded, seconds)
            parts, decoded, began = [], 0, time.perf_counter()


def _slices(number: int, task: ShardTask) -> Iterator[Slice]:
    """Cut a measured shard into batches by its index feature."""
    table = read_features(task, ["offset", "length"])
    offsets, lengths = (table[name].to_numpy() for name in ("offset", "length"))
    for first in range(0, len(table), BATCH):
        last = min(first + BATCH, len(table)) - 1
        end = int(offsets[last] + lengths[last])
        yield Slice(number, int(offsets[first]), end, last - first + 1, last == len(table) - 1)


def _start_worker(_: int) -> None:
    import torch

    one_thread()
    torch.set_num_threads(1)
