"""Write: copy the kept samples' bytes into new shards, with their features beside them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import WorkError
from curate.hashing import file_digest, file_sha256
from curate.measure import ShardTask, read_features
from curate.storage import Folder

if TYPE_CHECKING:  # workers import this module, and need not load what decides
    from curate.engines import Engine

SHARDS = "shards"
SAMPLES_PER_SHARD = 10_000
_END = 1024  # two zero blocks end a tar
_RECORD = 10_240  # and tar pads to whole records
_COPY = 1 << 24


@dataclass(frozen=True)
class WriteTask:
    """All that a worker needs to write one shard: which samples, by input shard and row."""

    out: Folder
    name: str
    plan: str
    sources: tuple[tuple[ShardTask, np.ndarray], ...]
    columns: tuple[str, ...]


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
    engine: Engine, tasks: Sequence[ShardTask], out: Folder, samples_per_shard: int = SAMPLES_PER_SHARD
) -> Iterator[WrittenShard]:
    """Write the samples that `OUT/selection.parquet` keeps, in pool order; yields shards as they are done.

    A shard whose parquet says that it was written from this very selection is not written again, so a killed
    run resumes. Member bytes and keys are the input's; a key that comes twice begins another shard.
    """
    with out.local_copy("selection.parquet") as path:
        plan = f"{file_sha256(path)[:16]}-{samples_per_shard}"
        kept = _kept(path, tasks)
    measured = dict.fromkeys(name for _, feature in tasks[0].features for name in feature.columns())
    columns = tuple(c for c in measured if c not in ("offset", "length", "image_offset"))
    work = []
    for number, (first, last) in enumerate(_ranges(kept, samples_per_shard)):
        part = kept.slice(first, last - first)
        shards, rows = part["shard"].to_numpy(), part["row"].to_numpy()
        cuts = np.flatnonzero(np.diff(shards)) + 1
        pieces = zip(np.split(shards, cuts), np.split(rows, cuts), strict=True)
        sources = tuple((tasks[int(shard[0])], row) for shard, row in pieces)
        work.append(WriteTask(out, f"{number:05d}", plan, sources, columns))
    _remove_others(out, {task.name for task in work})
    yield from engine.map(write_shard, work)


def write_shard(task: WriteTask) -> WrittenShard:
    """Write one shard and its parquet, each by rename; the parquet last, as the sign that both are whole."""
    tar, parquet = f"{SHARDS}/{task.name}.tar", f"{SHARDS}/{task.name}.parquet"
    if (done := _written(task, tar, parquet)) is not None:
        return done
    tables = []
    with task.out.writing(tar) as part:
        with Path(part).open("wb", buffering=0) as sink:
            for source, rows in task.sources:
                tables.append(read_features(source, ["offset", "length", *task.columns]).take(pa.array(rows)))
                with source.pool.local_copy(source.shard.name) as path, Path(path).open("rb") as shard:
                    _copy(shard, sink, tables[-1]["offset"].to_numpy(), tables[-1]["length"].to_numpy())
            size = sink.tell()
            sink.write(bytes(-(-(size + _END) // _RECORD) * _RECORD - size))
            size = sink.tell()
        digest = file_digest(part)
    table = pa.concat_tables(tables).drop_columns(["offset", "length"])
    fact = {"plan": task.plan, "samples": len(table), "bytes": size, "digest": digest}
    task.out.write_parquet(parquet, table.replace_schema_metadata({b"curate": json.dumps(fact).encode()}))
    return WrittenShard(task.name, len(table), size, digest)


def _written(task: WriteTask, tar: str, parquet: str) -> WrittenShard | None:
    if not (task.out.exists(tar) and task.out.exists(parquet)):
        return None
    with task.out.local_copy(parquet) as path:
        fact = json.loads((pq.read_metadata(path).metadata or {}).get(b"curate", b"{}"))
    if fact.get("plan") != task.plan or task.out.fs.size(task.out.path(tar)) != fact["bytes"]:
        return None
    return WrittenShard(task.name, fact["samples"], fact["bytes"], fact["digest"], resumed=True)


def _copy(source: IO[bytes], sink: IO[bytes], offsets: np.ndarray, lengths: np.ndarray) -> None:
    """Copy byte ranges in order; neighbours go in one call, inside the kernel where it can."""
    ends = offsets + lengths
    starts = np.flatnonzero(np.append(True, offsets[1:] != ends[:-1]))
    stops = np.append(starts[1:], len(offsets)) - 1
    for start, end in zip(offsets[starts].tolist(), ends[stops].tolist(), strict=True):
        while start < end:
            copied = _send(source.fileno(), sink.fileno(), start, min(end - start, _COPY))
            if copied == 0:
                raise WorkError(f"{source.name} ended while it was copied; it changed since it was measured")
            start += copied


def _send(source: int, sink: int, start: int, count: int) -> int:
    if sys.platform == "linux":
        return os.sendfile(sink, source, start, count)
    return os.write(sink, os.pread(source, count, start))


def _kept(path: str, tasks: Sequence[ShardTask]) -> pa.Table:
    """The kept samples in pool order: `shard` (number), `row` (in the shard) and `key`."""
    numbers = {task.shard.name: number for number, task in enumerate(tasks)}
    parts, last, seen = [], -1, 0
    for batch in pq.ParquetFile(path).iter_batches(columns=["shard", "key", "keep"]):
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
        parts.append(pa.table({"shard": number[keep], "row": rows[keep], "key": batch["key"].filter(batch["keep"])}))
    return pa.concat_tables(parts).combine_chunks()


def _ranges(kept: pa.Table, samples_per_shard: int) -> list[tuple[int, int]]:
    """Cut the kept samples into shards: full ones, shorter where a key would stand twice in one tar."""
    codes = kept["key"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    same = codes[order][1:] == codes[order][:-1]
    before = np.full(len(codes), -1, np.int64)  # where the same key stood last
    before[order[1:][same]] = order[:-1][same]
    repeats = np.flatnonzero(before >= 0)
    ranges, first = [], 0
    while first < len(codes):
        last = min(first + samples_per_shard, len(codes))
        inside = repeats[np.searchsorted(repeats, first) : np.searchsorted(repeats, last)]
        clash = inside[before[inside] >= first]
        last = int(clash[0]) if len(clash) else last
        ranges.append((first, last))
        first = last
    return ranges


def _remove_others(out: Folder, names: set[str]) -> None:
    """Remove shards that an earlier, different run left behind."""
    if not out.exists(SHARDS):
        return
    for path in out.fs.find(out.path(SHARDS)):
        file = path.rsplit("/", 1)[-1]
        if file.split(".")[0] not in names or file.startswith("."):
            out.fs.rm_file(path)
