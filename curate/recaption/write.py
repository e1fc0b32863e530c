"""Write the pool again with the chosen captions: every sample, image bytes and keys as they were."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from curate.copying import Sink, copy_ranges
from curate.engines import Engine
from curate.errors import WorkError
from curate.hashing import facts_hash
from curate.measure import ShardTask, read_features
from curate.recaption.ask import ShardWork
from curate.recaption.members import recaptioned
from curate.recaption.mix import CHOSEN, TEXT, WEIGHT
from curate.storage import Folder
from curate.write import SHARDS

CAPTIONS = "captions.parquet"
WRITTEN = "_written"
"""Folder of facts of the shards that are done, so that a killed run goes on."""
FORMAT = 1
"""Raised when the same captions are written in another way."""
ROW_GROUP = 1 << 14
_END, _RECORD = 1024, 10_240  # two zero blocks end a tar, which is padded to whole records


@dataclass(frozen=True)
class RecaptionTask:
    """All that a worker needs to write one shard. `first` and `rows` say where its captions lie in captions.parquet."""

    out: Folder
    task: ShardTask
    name: str
    plan: str
    places: np.ndarray
    """The candidates' rows in the shard."""
    first: int
    rows: int


@dataclass(frozen=True)
class RecaptionedShard:
    """A shard as it was written. `digest` is the 128-bit XXH3 of the tar."""

    name: str
    plan: str
    samples: int
    bytes: int
    digest: str


def write_recaptioned(
    engine: Engine, tasks: Sequence[ShardTask], work: Sequence[ShardWork], mixed: pa.Table, out: Folder, digests: dict
) -> Iterator[RecaptionedShard]:
    """Write `OUT/captions.parquet` and every shard of the pool; yields shards as they are done.

    A shard that was written from these very captions is not written again.

    Args:
        mixed: the captions of all candidates, in pool order.
        digests: what each shard of the pool holds, by name.
    """
    out.write_parquet(CAPTIONS, mixed, row_group_size=ROW_GROUP)
    names = out_names([task.shard.name for task in tasks])
    rows = {shard.task.shard.name: shard.rows for shard in work}
    width = len(mixed) // max(1, sum(map(len, rows.values())))
    first, asked = 0, []
    for task in tasks:
        places = rows.get(task.shard.name, np.zeros(0, np.int64))
        part = mixed.slice(first, width * len(places))
        plan = facts_hash([FORMAT, digests[task.shard.name], _digest(part)])
        name = names[task.shard.name]
        asked.append(RecaptionTask(out, task, name, plan, places, first, len(part)))
        first += len(part)
    yield from engine.map(write_shard, asked)


def out_names(shards: Sequence[str]) -> dict[str, str]:
    """Where each shard of the pool is written: OUT/shards and its name, of which a folder `shards` is not repeated."""
    inside = f"{SHARDS}/" if all(name.startswith(f"{SHARDS}/") for name in shards) else ""
    return {name: f"{SHARDS}/{name.removeprefix(inside)}" for name in shards}


def write_shard(task: RecaptionTask) -> RecaptionedShard:
    """Write one shard by rename, and then the fact that it is whole."""
    fact = f"{WRITTEN}/{task.name.removeprefix(f'{SHARDS}/').removesuffix('.tar')}.json"
    if (done := _done(task, fact)) is not None:
        return done
    index = read_features(task.task, ["uid", "offset", "length"])
    places = index.take(pa.array(task.places))
    with (
        task.task.pool.local_copy(task.task.shard.name) as path,
        Path(path).open("rb", buffering=0) as shard,
        task.out.writing(task.name) as part,
        Path(part).open("wb", buffering=0) as file,
    ):
        assert isinstance(shard, FileIO) and isinstance(file, FileIO)
        sink, at = Sink(file), 0
        ranges = zip(places["offset"].to_pylist(), places["length"].to_pylist(), strict=True)
        for (offset, length), captions in zip(ranges, _captions(task), strict=True):
            _copy(shard, sink, at, offset)
            sink.write(_new(shard, offset, length, captions))
            at = offset + length
        _copy_end(shard, sink, at, _ends(index), task.task.shard.size)
    written = RecaptionedShard(task.name, task.plan, len(index), sink.size, sink.digest)
    task.out.write_json(fact, asdict(written))
    return written


def _done(task: RecaptionTask, fact: str) -> RecaptionedShard | None:
    if not (task.out.exists(fact) and task.out.exists(task.name)):
        return None
    try:
        done = RecaptionedShard(**task.out.read_json(fact))
    except (ValueError, TypeError):
        return None
    same = done.plan == task.plan and task.out.fs.size(task.out.path(task.name)) == done.bytes
    return done if same else None


def _captions(task: RecaptionTask) -> Iterator[list[dict[str, Any]]]:
    """The rows of each candidate of the shard, in order."""
    if not task.rows:
        return
    groups = range(task.first // ROW_GROUP, (task.first + task.rows - 1) // ROW_GROUP + 1)
    with task.out.parquet(CAPTIONS) as file:
        table = file.read_row_groups(list(groups), use_threads=False)
    table = table.slice(task.first - groups[0] * ROW_GROUP, task.rows)
    width = task.rows // len(task.places)
    for first in range(0, len(table), width):
        yield table.slice(first, width).to_pylist()


def _new(shard: FileIO, offset: int, length: int, captions: list[dict[str, Any]]) -> bytes:
    """The tar blocks of a candidate, as they are where no caption is chosen."""
    data = os.pread(shard.fileno(), length, offset)
    if len(data) != length:
        raise WorkError(f"{shard.name} ended while it was copied; it changed since it was measured")
    chosen = [row for row in captions if row[CHOSEN]]
    text = next((row for row in captions if row[TEXT]), None)
    if not chosen or text is None:
        return data
    said = [_said(row) for row in chosen]
    new = text["caption"] if text["number"] >= 0 else None
    return recaptioned(data, captions[0]["uid"], new, captions[0]["caption"], said)


def _said(row: dict[str, Any]) -> dict[str, Any]:
    """A chosen caption as the sample's .json tells of it."""
    facts = {name: row[name] for name in ("caption", "source", "model", "prompt", "seed")}
    score = None if row["score"] is None else round(row["score"], 6)
    return facts | {"score": score, "weight": round(row[WEIGHT], 6)}


def _copy(shard: FileIO, sink: Sink, start: int, end: int) -> None:
    if end > start:
        copy_ranges(shard, sink, np.array([start]), np.array([end - start]))


def _ends(index: pa.Table) -> int:
    """Where the last sample ends."""
    return pc.max(pc.add(index["offset"], index["length"])).as_py() or 0


def _copy_end(shard: FileIO, sink: Sink, at: int, last: int, size: int) -> None:
    """Copy the rest of a shard; the zeros that end a tar are made anew where its length changed."""
    if sink.size == at:
        _copy(shard, sink, at, size)
        return
    _copy(shard, sink, at, last)
    rest = os.pread(shard.fileno(), min(size - last, 1 << 20), last)
    if not rest or size - last > len(rest) or any(rest):
        _copy(shard, sink, last, size)
    else:
        sink.write(bytes(-(-(sink.size + _END) // _RECORD) * _RECORD - sink.size))


def _digest(part: pa.Table) -> str:
    """A digest of captions as they are, and not of how they lie in memory."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, part.schema) as writer:
        writer.write_table(part.combine_chunks())
    return xxhash.xxh3_128_hexdigest(sink.getvalue())


def remove_others(out: Folder, names: Sequence[str]) -> None:
    """Remove shards and facts that an earlier, different run left behind."""
    wanted = set(names) | {f"{WRITTEN}/{n.removeprefix(f'{SHARDS}/').removesuffix('.tar')}.json" for n in names}
    for folder in (SHARDS, WRITTEN):
        if out.exists(folder):
            for path in out.fs.find(out.path(folder)):
                name = path[len(out.root) + 1 :]
                hidden = name.rpartition("/")[2].startswith(".")
                if name not in wanted and (hidden or name.endswith((".tar", ".json"))):
                    out.fs.rm_file(path)


def read_captions(out: Folder) -> pa.Table:
    """OUT/captions.parquet."""
    with out.local_copy(CAPTIONS) as path:
        return pq.read_table(path)
