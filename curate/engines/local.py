"""The default engine: a process per core over shards, and DuckDB for the decisions."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from curate.engines import numbered_rows, schema_of
from curate.errors import WorkError
from curate.measure import ShardTask, one_thread

Task = TypeVar("Task")
Result = TypeVar("Result")
AHEAD = 4  # tasks queued per worker: enough to keep it busy, few enough to stop soon


class LocalEngine:
    """Runs on this machine. Results do not depend on `workers`: a shard is measured by one, with one thread."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or len(os.sched_getaffinity(0))
        self._scratch = tempfile.TemporaryDirectory(prefix="curate-")
        self._connection: Any = None
        self._tables = 0

    def gpu_here(self) -> bool:
        import torch

        return torch.cuda.is_available()

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        if self.workers == 1 or len(tasks) <= 1:
            yield from (function(task) for task in tasks)
            return
        context = multiprocessing.get_context("spawn")  # forking a process that has threads may hang
        with ProcessPoolExecutor(min(self.workers, len(tasks)), context, initializer=one_thread) as pool:
            try:
                waiting = {pool.submit(function, task) for task in tasks}
                for future in as_completed(waiting):
                    yield future.result()
            except BrokenProcessPool as error:
                raise WorkError(
                    "a worker process died (out of memory, or a codec crashed); what was finished is kept, so "
                    "run the same command again, with --workers 1 if it dies again"
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def table(self, tasks: Sequence[ShardTask], columns: Sequence[str]) -> ir.Table:
        schema = schema_of(tasks, columns)
        batches = (
            batch
            for number, task in enumerate(tasks)
            for batch in numbered_rows(number, task, columns).cast(schema).to_batches()
        )
        readable = pa.schema([_for_duckdb(field) for field in schema])
        cast = (pa.Table.from_batches([batch]).cast(readable).to_batches()[0] for batch in batches if len(batch))
        return self._store(pa.RecordBatchReader.from_batches(readable, cast))

    def keep(self, table: ir.Table | pa.Table) -> ir.Table:
        return self._store(table) if isinstance(table, pa.Table) else self._duckdb().create_table(self._name(), table)

    def _store(self, rows: pa.Table | pa.RecordBatchReader) -> ir.Table:
        """Put Arrow data into DuckDB; not through ibis, which would read a stream into memory first."""
        connection, name = self._duckdb(), self._name()
        connection.con.register("stream", rows)
        connection.con.execute(f"CREATE TABLE {name} AS SELECT * FROM stream")
        connection.con.unregister("stream")
        return connection.table(name)

    def _name(self) -> str:
        self._tables += 1
        return f"step_{self._tables}"

    def _duckdb(self) -> Any:
        if self._connection is None:
            self._connection = ibis.duckdb.connect(
                str(Path(self._scratch.name) / "decide.duckdb"), threads=self.workers
            )
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
        self._scratch.cleanup()


def _for_duckdb(field: pa.Field) -> pa.Field:
    """DuckDB has no half-precision floats."""
    kind = field.type
    if pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float16():
        return pa.field(field.name, pa.list_(pa.float32(), kind.list_size))
    return pa.field(field.name, pa.float32()) if kind == pa.float16() else field
