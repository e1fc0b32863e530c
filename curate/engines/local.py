"""The default engine: a process per core over shards, and DuckDB for the decisions."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from curate.engines import ROW, Survivors, scattered, schema_of
from curate.engines.scan import HELD, Scan, row_counts
from curate.errors import WorkError
from curate.measure import ShardTask, one_thread
from curate.memory import give_back, hold_little
from curate.threads import threaded

Task = TypeVar("Task")
Result = TypeVar("Result")


class LocalEngine:
    """Runs on this machine. Results do not depend on `workers`: a shard is measured by one, with one thread."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or len(os.sched_getaffinity(0))
        hold_little()
        self._scratch = tempfile.TemporaryDirectory(prefix="curate-")
        self._connection: Any = None
        self._tables = 0
        self._passing: list[str] = []

    def gpu_here(self) -> bool:
        import torch

        return torch.cuda.is_available()

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task], light: bool = False) -> Iterator[Result]:
        if self.workers == 1 or len(tasks) <= 1:
            yield from (function(task) for task in tasks)
            return
        if light:
            yield from threaded(function, tasks, self.workers)
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

    def samples(self, tasks: Sequence[ShardTask]) -> LocalSurvivors:
        starts = np.concatenate([[0], np.cumsum(row_counts(tasks))])
        return LocalSurvivors(self, tasks, starts, None)

    def keep(self, table: ir.Table | pa.Table) -> ir.Table:
        name = self._name()
        if isinstance(table, pa.Table):
            self.duckdb().con.execute(f"CREATE TABLE {name} AS SELECT * FROM {self.view(table).get_name()}")
        else:
            self.duckdb().create_table(name, table)
        return self.duckdb().table(name)

    def view(self, rows: pa.Table | Scan) -> ir.Table:
        """Arrow data to build expressions on, read when they are worked out; not through ibis, which would copy it."""
        name = self._name()
        self.duckdb().con.register(name, rows)
        return self.duckdb().table(name)

    def _name(self) -> str:
        self._tables += 1
        self._passing.append(f"step_{self._tables}")
        return self._passing[-1]

    def forget(self, but: Sequence[ir.Table]) -> None:
        staying = {table.get_name() for table in but}
        for name in self._passing:
            if name not in staying:
                self.duckdb().con.unregister(name)
                self.duckdb().con.execute(f"DROP TABLE IF EXISTS {name}")
        self._passing.clear()
        give_back()

    def duckdb(self) -> Any:
        """The connection. Its tables are in memory, up to a limit; what goes beyond it goes to disk."""
        if self._connection is None:
            self._connection = ibis.duckdb.connect(
                threads=self.workers,
                memory_limit=f"{memory_limit() >> 20}MiB",
                temp_directory=self._scratch.name,
                preserve_insertion_order=False,
            )
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
        self._scratch.cleanup()


@dataclass(frozen=True)
class LocalSurvivors:
    """A bit of each sample of the pool, and the shards to read the columns of those alive from."""

    engine: LocalEngine
    tasks: Sequence[ShardTask]
    starts: np.ndarray
    """The place of each shard's first sample, and their number at the end: int64 (shards + 1,)."""
    alive: np.ndarray | None
    """bool (samples,), or None while all are."""

    def table(self, columns: Sequence[str], once: bool = False) -> ir.Table:
        schema = pa.schema([_for_duckdb(field) for field in schema_of(self.tasks, columns)])
        return self.engine.view(Scan(self.tasks, self.starts, self.alive, schema, held=0 if once else HELD))

    def without(self, dropped: ir.Table) -> LocalSurvivors:
        alive = np.ones(self.starts[-1], bool) if self.alive is None else self.alive.copy()
        for batch in dropped.select(ROW).to_pyarrow_batches():
            rows = batch.column(0).to_numpy()
            alive[self.starts[rows >> 32] + (rows & 0xFFFFFFFF)] = False
        return LocalSurvivors(self.engine, self.tasks, self.starts, alive)

    def some(self, count: int) -> np.ndarray:
        places = np.arange(self.starts[-1]) if self.alive is None else np.flatnonzero(self.alive)
        shard = np.searchsorted(self.starts, places, side="right") - 1
        rows = (shard << 32) + places - self.starts[shard]
        return rows[np.lexsort((rows, scattered(rows)))[:count]]

    def shared(self, other: Survivors) -> int:
        assert isinstance(other, LocalSurvivors)
        if self.alive is None or other.alive is None:
            both = other.alive if self.alive is None else self.alive
            return int(self.starts[-1] if both is None else both.sum())
        return int((self.alive & other.alive).sum())


def memory_limit() -> int:
    """Bytes that deciding may hold before it uses the disk: a quarter of the memory there is, 2 GiB at most."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(256 << 20, min(2 << 30, there // 4))


def _for_duckdb(field: pa.Field) -> pa.Field:
    """DuckDB has no half-precision floats."""
    kind = field.type
    if pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float16():
        return pa.field(field.name, pa.list_(pa.float32(), kind.list_size))
    return pa.field(field.name, pa.float32()) if kind == pa.float16() else field
