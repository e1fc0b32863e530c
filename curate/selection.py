"""The selection: verdicts in the engine, and as a file, one row per sample in pool order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.engines import Survivors
from curate.errors import WorkError
from curate.hashing import file_sha256
from curate.measure import ShardTask, read_features
from curate.storage import Folder
from curate.threads import threaded

SELECTION = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("keep", pa.bool_(), nullable=False),
        pa.field("filter", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("duplicate_of", pa.string()),
    ]
)
STEP = "step"
ROW_GROUP = 1 << 17
_COLUMNS = ("row", STEP, "reason", "duplicate_of")


@dataclass(frozen=True)
class FunnelStep:
    """What one filter did: samples that came in, that it dropped, and that went on."""

    filter: str
    samples_in: int
    dropped: int
    samples_out: int
    seconds: float

    def as_dict(self) -> dict[str, object]:
        values = asdict(self)
        return {"filter": values["filter"], "in": values["samples_in"], "dropped": values["dropped"],
                "out": values["samples_out"], "seconds": round(values["seconds"], 3)}  # fmt: skip


@dataclass(frozen=True)
class Selection:
    """How far deciding has come: who is left, what was said of the others, and the funnel. It never changes."""

    tasks: Sequence[ShardTask]
    samples: int
    alive: Survivors
    dropped: tuple[ir.Table, ...] = ()
    """In the engine: `row`, `step` (the filter's place in the funnel), `reason` and `duplicate_of` of the dropped
    samples, each in one of the tables, in any order."""
    funnel: tuple[FunnelStep, ...] = ()
    told: bool = True
    """Whether every drop has its reason; a preview of a large pool has it of some."""

    @property
    def kept(self) -> int:
        return self.funnel[-1].samples_out if self.funnel else self.samples


def write_selection(selection: Selection, folder: Folder, name: str = "selection.parquet") -> None:
    """Write the verdicts in pool order; the same verdicts give the same bytes, whatever the engine.

    Raises:
        WorkError: a filter judged a sample twice, or one that is not there.
    """
    assert selection.told, "a selection without reasons is only for a preview"
    with folder.writing(name) as part, pq.ParquetWriter(part, SELECTION, compression="zstd") as writer:
        pending: list[pa.Table] = []
        waiting = 0
        for shard in _shards(selection):
            pending.append(shard)
            waiting += len(shard)
            if waiting >= ROW_GROUP:
                table = pa.concat_tables(pending)
                waiting = len(table) % ROW_GROUP
                for first in range(0, len(table) - waiting, ROW_GROUP):
                    writer.write_table(table.slice(first, ROW_GROUP).combine_chunks(), row_group_size=ROW_GROUP)
                pending = [table.slice(len(table) - waiting)]
        if waiting:
            writer.write_table(pa.concat_tables(pending).combine_chunks(), row_group_size=ROW_GROUP)


def selection_digest(path: str) -> str:
    """SHA-256 of a selection's file, read once while the file stays as it is."""
    facts = Path(path).stat()
    return _digest(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=4)
def _digest(path: str, size: int, time: int) -> str:
    return file_sha256(path)


def _shards(selection: Selection) -> Iterator[pa.Table]:
    """The selection's rows, shard by shard: what they are called from the cache, what was said of them in order."""
    names = pa.array([step.filter for step in selection.funnel], pa.string())
    said = _Verdicts(selection)
    named = threaded(lambda task: read_features(task, ("uid", "key")), selection.tasks)
    for number, (task, table) in enumerate(zip(selection.tasks, named, strict=True)):
        yield _judged(task.shard.name, table, said.of(number), names)
    said.end()


def _judged(shard: str, table: pa.Table, said: pa.Table, names: pa.Array) -> pa.Table:
    """A shard's rows of the selection from its `uid` and `key`, and the verdicts on the dropped."""
    place = said["row"].to_numpy() & 0xFFFFFFFF
    at = np.full(len(table), -1, np.int64)
    if len(place) and place.max() < len(table):
        at[place] = np.arange(len(place))
    dropped = at >= 0
    if dropped.sum() != len(place):
        raise WorkError(f"{shard}: {len(place)} verdicts for {dropped.sum()} samples; this is a bug of a filter")
    index = pa.array(at, mask=~dropped)
    columns = [
        table["uid"],
        pa.repeat(pa.scalar(shard, pa.string()), len(table)),
        table["key"],
        pa.array(~dropped),
        names.take(said[STEP].combine_chunks().take(index)),
        said["reason"].combine_chunks().take(index),
        said["duplicate_of"].combine_chunks().take(index),
    ]
    return pa.Table.from_arrays(columns, schema=SELECTION)


class _Verdicts:
    """What was said of the dropped, given out shard by shard."""

    def __init__(self, selection: Selection) -> None:
        self._batches: Iterator[pa.RecordBatch] = iter(())
        if tables := [table.select(*_COLUMNS) for table in selection.dropped]:
            every = ibis.union(*tables) if len(tables) > 1 else tables[0]
            self._batches = iter(every.order_by("row").to_pyarrow_batches(chunk_size=ROW_GROUP))
        self._pending = pa.schema(
            [("row", pa.int64()), (STEP, pa.int32()), ("reason", pa.string()), ("duplicate_of", pa.string())]
        ).empty_table()

    def of(self, number: int) -> pa.Table:
        """The verdicts on shard `number`; to be asked for in order."""
        bound = (number + 1) << 32
        parts = [self._pending]
        while not len(parts[-1]) or parts[-1]["row"][-1].as_py() < bound:
            if (batch := next(self._batches, None)) is None:
                break
            parts.append(pa.Table.from_batches([batch]).cast(self._pending.schema))
        table = pa.concat_tables(parts)
        count = int(np.searchsorted(table["row"].to_numpy(), bound))
        self._pending = table.slice(count)
        return table.slice(0, count)

    def end(self) -> None:
        if len(self._pending) or next(self._batches, None) is not None:
            raise WorkError("a filter dropped a sample of a shard that is not there; this is a bug of the filter")
