"""Write: copy the kept samples' bytes into new shards, with their features beside them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.copying import Sink, copy_ranges
from curate.measure import ShardTask, read_features
from curate.memory import give_back
from curate.parquet import RowGroups
from curate.storage import Folder

if TYPE_CHECKING:  # workers import this module, and need not load what decides
    from curate.engines import Engine

SHARDS = "shards"
SAMPLES_PER_SHARD = 10_000
_END = 1024  # two zero blocks end a tar
_RECORD = 10_240  # and tar pads to whole records
_ROWS = 1 << 17  # of the selection, read at a time


@dataclass(frozen=True)
class WriteTask:
    """All that a worker needs to write one shard: which samples, by input shard and row."""

    out: Folder
    name: str
    plan: str
    sources: tuple[tuple[ShardTask, np.ndarray], ...]
    columns: tuple[str, ...]
    blur: bool = False
    """Faces are blurred: images that show some are not copied (see `curate.blur`)."""


@dataclass(frozen=True)
class WrittenShard:
    """A shard of the dataset. `digest` is the 128-bit XXH3 of the tar."""

    name: str
    samples: int
    bytes: int
    digest: str
    resumed: bool = False

    def as_dict(self) -> dict[str, object]:
        return {
            "name": f"{self.name}.tar",
            "samples": self.samples,
            "bytes": self.bytes,
            "digest": self.digest,
        }


def write_shards(
    engine: Engine,
    tasks: Sequence[ShardTask],
    out: Folder,
    samples_per_shard: int = SAMPLES_PER_SHARD,
    blur: bool = False,
) -> Iterator[WrittenShard]:
    """Write the samples that `OUT/selection.parquet` keeps, in pool order; yields shards as they are done.

    A shard whose parquet says that it was written from this very selection is not written again, so a killed
    run resumes. Member bytes and keys are the input's; a key that comes twice begins another shard.
    """
    from curate.selection import selection_digest  # loads ibis, which workers need not

    with out.local_copy("selection.parquet") as path:
        plan = f"{selection_digest(path)[:16]}-{samples_per_shard}"
        if blur:
            plan += next(f"-{folder}" for folder, feature in tasks[0].features if feature.name == "faces")
        measured = dict.fromkeys(name for _, feature in tasks[0].features for name in feature.columns())
        columns = tuple(c for c in measured if c not in ("offset", "length", "image_offset"))
        work = []
        for number, (shards, rows) in enumerate(_cut(_kept(path, tasks), samples_per_shard)):
            cuts = np.flatnonzero(np.diff(shards)) + 1
            pieces = zip(np.split(shards, cuts), np.split(rows, cuts), strict=True)
            sources = tuple((tasks[int(shard[0])], row) for shard, row in pieces)
            work.append(WriteTask(out, f"{number:05d}", plan, sources, columns, blur))
    _remove_others(out, {task.name for task in work})
    yield from engine.map(write_shard, work, light=not blur)
    give_back()


def write_shard(task: WriteTask) -> WrittenShard:
    """Write one shard and its parquet, each by rename; the parquet last, as the sign that both are whole."""
    tar, parquet = f"{SHARDS}/{task.name}.tar", f"{SHARDS}/{task.name}.parquet"
    if (done := _written(task, tar, parquet)) is not None:
        return done
    places = ["offset", "length"]
    if task.blur:
        from curate.blur import copy_blurred

        places.append("image_offset")
    with (
        task.out.writing(parquet) as beside,
        RowGroups(beside) as kept,
        task.out.writing(tar) as part,
        Path(part).open("wb", buffering=0) as file,
    ):
        sink = Sink(file)
        for source, rows in task.sources:
            table = read_features(source, [*places, *task.columns]).take(pa.array(rows))
            with source.pool.local_copy(source.shard.name) as path, Path(path).open("rb", buffering=0) as shard:
                if task.blur:
                    table = copy_blurred(shard, sink, table)
                else:
                    copy_ranges(shard, sink, table["offset"].to_numpy(), table["length"].to_numpy())
            kept.add(table.drop_columns(places))
        sink.write(bytes(-(-(sink.size + _END) // _RECORD) * _RECORD - sink.size))
        fact = {"plan": task.plan, "samples": kept.rows, "bytes": sink.size, "digest": sink.digest}
        kept.note({"curate": json.dumps(fact)})
    return WrittenShard(task.name, kept.rows, sink.size, sink.digest)


def _written(task: WriteTask, tar: str, parquet: str) -> WrittenShard | None:
    if not (task.out.exists(tar) and task.out.exists(parquet)):
        return None
    with task.out.local_copy(parquet) as path:
        fact = json.loads((pq.read_metadata(path).metadata or {}).get(b"curate", b"{}"))
    if fact.get("plan") != task.plan or task.out.fs.size(task.out.path(tar)) != fact["bytes"]:
        return None
    return WrittenShard(task.name, fact["samples"], fact["bytes"], fact["digest"], resumed=True)


def _kept(path: str, tasks: Sequence[ShardTask]) -> Iterator[pa.Table]:
    """The kept samples in pool order, in pieces: `shard` (number), `row` (in the shard) and `key`."""
    numbers = {task.shard.name: number for number, task in enumerate(tasks)}
    last, seen = -1, 0
    for batch in pq.ParquetFile(path).iter_batches(_ROWS, columns=["shard", "key", "keep"]):
        encoded = batch["shard"].dictionary_encode()
        number = np.array([numbers[name] for name in encoded.dictionary.to_pylist()])[encoded.indices]
        # A shard's rows stand together, so a row's place in it is its distance from where the shard began.
        starts = np.flatnonzero(np.diff(number, prepend=last))
        began = np.zeros(len(number), np.int64)
        began[starts] = starts
        first = np.maximum.accumulate(began)
        rows = np.arange(len(number)) - first
        rows[: starts[0] if len(starts) else len(rows)] += seen
        last, seen = int(number[-1]), int(rows[-1]) + 1
        keep = batch["keep"].to_numpy(zero_copy_only=False)
        shard, row = number[keep].astype(np.int32), rows[keep].astype(np.uint32)
        yield pa.table({"shard": shard, "row": row, "key": batch["key"].filter(batch["keep"])})


def _cut(kept: Iterable[pa.Table], samples_per_shard: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut the kept samples into shards: full ones, shorter where a key would stand twice in one tar.

    Yields the `shard` and `row` of each. About two shards' keys are held at a time.
    """
    waiting: list[pa.Table] = []
    for part in itertools.chain(kept, [None]):
        waiting += [part] if part is not None else []
        if not waiting or (part is not None and sum(map(len, waiting)) < 2 * samples_per_shard):
            continue
        table = pa.concat_tables(waiting).combine_chunks()
        shards, rows, done = table["shard"].to_numpy(), table["row"].to_numpy(), 0
        for first, last, sure in _ranges(table["key"], samples_per_shard):
            if not sure and part is not None:
                break
            yield shards[first:last].copy(), rows[first:last].copy()
            done = last
        waiting = [table.slice(done)] if done < len(table) else []


def _ranges(keys: pa.ChunkedArray, samples_per_shard: int) -> Iterator[tuple[int, int, bool]]:
    """Where each shard begins and ends, and whether it ends there whatever comes after."""
    codes = keys.combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    same = codes[order][1:] == codes[order][:-1]
    before = np.full(len(codes), -1, np.int64)  # where the same key stood last
    before[order[1:][same]] = order[:-1][same]
    repeats = np.flatnonzero(before >= 0)
    first = 0
    while first < len(codes):
        last = min(first + samples_per_shard, len(codes))
        inside = repeats[np.searchsorted(repeats, first) : np.searchsorted(repeats, last)]
        clash = inside[before[inside] >= first]
        last = int(clash[0]) if len(clash) else last
        yield first, last, bool(len(clash)) or last - first == samples_per_shard
        first = last


def _remove_others(out: Folder, names: set[str]) -> None:
    """Remove shards that an earlier, different run left behind."""
    if not out.exists(SHARDS):
        return
    for path in out.fs.find(out.path(SHARDS)):
        file = path.rsplit("/", 1)[-1]
        if file.split(".")[0] not in names or file.startswith("."):
            out.fs.rm_file(path)
