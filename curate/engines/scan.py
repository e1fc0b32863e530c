"""Read the cached columns of many shards as one stream, a few shards ahead of whoever uses them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curate.engines import numbered_rows
from curate.measure import ShardTask, sidecar
from curate.threads import threaded


def row_counts(tasks: Sequence[ShardTask]) -> np.ndarray:
    """How many samples each measured shard has, from the footers of its index: int64 (shards,)."""

    def count(task: ShardTask) -> int:
        with task.cache.parquet(sidecar(task.features[0][0], task.shard.name)) as file:
            return file.metadata.num_rows

    return np.fromiter(threaded(count, tasks), np.int64, len(tasks))


@dataclass(frozen=True)
class Scan:
    """Columns of the samples still alive, as an Arrow stream that can be read again and again.

    DuckDB asks an object for `__arrow_c_stream__` each time it scans it. `alive` (samples of the pool,) or None
    for all of them; shard n's samples begin at `starts[n]`. `schema` has the types that are asked for.
    """

    tasks: Sequence[ShardTask]
    columns: tuple[str, ...]
    starts: np.ndarray
    alive: np.ndarray | None
    schema: pa.Schema

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        reader = pa.RecordBatchReader.from_batches(self.schema, self._batches())
        return reader.__arrow_c_stream__(requested_schema)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for table in threaded(self._read, range(len(self.tasks))):
            yield from table.to_batches()

    def _read(self, number: int) -> pa.Table:
        alive = None if self.alive is None else self.alive[self.starts[number] : self.starts[number + 1]]
        if alive is not None and not alive.any():
            return self.schema.empty_table()
        rows = numbered_rows(number, self.tasks[number], self.columns)
        return (rows if alive is None else rows.filter(pa.array(alive))).cast(self.schema)
