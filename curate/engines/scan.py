"""Read the cached columns of many shards as one stream, a few shards ahead of whoever uses them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from curate.engines import ROW, row_numbers
from curate.measure import ShardTask, read_features, sidecar
from curate.threads import threaded

HELD = 1 << 29
"""Bytes of columns that a scan keeps for when they are read again."""


def row_counts(tasks: Sequence[ShardTask]) -> np.ndarray:
    """How many samples each measured shard has, from the footers of its index: int64 (shards,)."""

    def count(task: ShardTask) -> int:
        with task.cache.parquet(sidecar(task.features[0][0], task.shard.name)) as file:
            return file.metadata.num_rows

    return np.fromiter(threaded(count, tasks), np.int64, len(tasks))


class Scan(ds.Dataset):
    """Columns of the samples still alive, to be read again and again by what asks a dataset for a scanner.

    DuckDB does so with just the columns that a query needs, and takes a batch when it has done with the last. (Any
    other object it would let Arrow read to its end, however long the reader lasts.) `alive` (samples of the pool,) or
    None for all of them; shard n's samples begin at `starts[n]`. `types` has the columns, as they are asked for.
    """

    def __init__(
        self,
        tasks: Sequence[ShardTask],
        starts: np.ndarray,
        alive: np.ndarray | None,
        types: pa.Schema,
        held: int = HELD,
    ) -> None:
        self._room = held
        self._tasks, self._starts, self._alive, self._types = tasks, starts, alive, types
        self._held: dict[tuple[int, str], pa.ChunkedArray] = {}

    @property
    def schema(self) -> pa.Schema:
        return self._types

    def scanner(self, columns: Sequence[str] | None = None, filter: pc.Expression | None = None, **_: Any) -> _Scanner:
        return _Scanner(self, tuple(columns if columns is not None else self._types.names), filter)

    def batches(self, columns: Sequence[str], filter: pc.Expression | None) -> Iterator[pa.RecordBatch]:
        """The columns of each shard's samples, in no more than a batch or two for each."""
        for table in threaded(lambda number: self._read(number, columns), range(len(self._tasks))):
            yield from (table if filter is None else _matching(table, filter)).to_batches()

    def _read(self, number: int, columns: Sequence[str]) -> pa.Table:
        types = pa.schema([self._types.field(name) for name in columns])
        alive = None if self._alive is None else self._alive[self._starts[number] : self._starts[number + 1]]
        if alive is not None and not alive.any():
            return types.empty_table()
        known = {name: self._held[number, name] for name in columns if (number, name) in self._held}
        found: dict[str, pa.ChunkedArray] = {}
        if ROW in columns and ROW not in known:
            samples = int(self._starts[number + 1] - self._starts[number])
            found[ROW] = pa.chunked_array([row_numbers(number, samples)])
        if missing := [name for name in columns if name not in known and name != ROW]:
            rows = read_features(self._tasks[number], missing)
            found |= {name: rows[name] for name in missing}
        if found:
            table = pa.table(found)
            table = table if alive is None else table.filter(pa.array(alive))
            found = {name: table[name].cast(types.field(name).type) for name in found}
            self._hold(number, found)
        return pa.table([known[name] if name in known else found[name] for name in columns], schema=types)

    def _hold(self, number: int, found: dict[str, pa.ChunkedArray]) -> None:
        """Keep narrow columns, while there is room: a filter may look at them several times."""
        for name, column in found.items():
            if not pa.types.is_nested(column.type) and (size := column.get_total_buffer_size()) <= self._room:
                self._room -= size
                self._held[number, name] = column


class _Scanner:
    """What a dataset answers a query with."""

    def __init__(self, scan: Scan, columns: tuple[str, ...], filter: pc.Expression | None) -> None:
        self._scan, self._columns, self._filter = scan, columns, filter

    @property
    def projected_schema(self) -> pa.Schema:
        return pa.schema([self._scan.schema.field(name) for name in self._columns])

    def to_reader(self) -> pa.RecordBatchReader:
        batches = self._scan.batches(self._columns, self._filter)
        return pa.RecordBatchReader.from_batches(self.projected_schema, batches)


def _matching(table: pa.Table, filter: pc.Expression) -> pa.Table:
    """The rows of a filter as SQL understands it: NaN is above every number, which Arrow's comparisons deny."""
    seen = table
    for place, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            high = pc.if_else(pc.is_nan(table[place]), pa.scalar(np.inf, field.type), table[place])
            seen = seen.set_column(place, field, high)
    places = seen.append_column("", pa.array(np.arange(len(seen)))).filter(filter)[""]
    return table if len(places) == len(table) else table.take(places)
