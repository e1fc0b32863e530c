"""Engines: where shard functions run and filters are evaluated. `local` needs nothing but pip; `spark` scales."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import ibis.expr.types as ir
import pyarrow as pa

from curate.errors import RequestError
from curate.measure import ShardTask, read_features

Task = TypeVar("Task")
Result = TypeVar("Result")
NAMES = ("local", "spark")
ROW = "row"
SHARD = "shard"


class Engine(Protocol):
    """Runs the same picklable functions and Ibis expressions, whatever it is built on."""

    workers: int

    def gpu_here(self) -> bool:
        """Whether this process should feed the models: it has a GPU, and the shards are measured beside it."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Run a function on every task, in any order; the first failure ends the run with `WorkError`."""

    def table(self, tasks: Sequence[ShardTask], columns: Sequence[str]) -> ir.Table:
        """The columns of all measured shards, with `row` and `shard`, to build expressions on."""

    def keep(self, table: ir.Table | pa.Table) -> ir.Table:
        """Work an expression out once and keep its rows, so that what is built on it does not do so again."""

    def close(self) -> None:
        """Give back what it holds."""


def open_engine(name: str, workers: int | None = None) -> Engine:
    """The engine of a name.

    Raises:
        RequestError: there is none of that name, or what it needs is not installed.
    """
    if name == "local":
        from curate.engines.local import LocalEngine

        return LocalEngine(workers)
    if name == "spark":
        from curate.engines.spark import SparkEngine

        return SparkEngine(workers)
    raise RequestError(f"--engine: no engine {name!r}; there are {', '.join(NAMES)}")


def numbered_rows(number: int, task: ShardTask, columns: Sequence[str]) -> pa.Table:
    """A shard's columns with each sample's place in the pool: the shard's number above, the row in it below."""
    table = read_features(task, columns)
    rows = pa.array(range(number << 32, (number << 32) + len(table)), pa.int64())
    shard = pa.repeat(pa.scalar(task.shard.name, pa.string()), len(table))
    return table.add_column(0, ROW, rows).add_column(1, SHARD, shard)


def schema_of(tasks: Iterable[ShardTask], columns: Sequence[str]) -> pa.Schema:
    """The schema of `numbered_rows`."""
    task = next(iter(tasks))
    types = {f.name: f.type for _, feature in task.features for f in feature.arrow_schema()} | {"error": pa.string()}
    fields = [pa.field(ROW, pa.int64()), pa.field(SHARD, pa.string())]
    return pa.schema(fields + [pa.field(name, types[name]) for name in columns])
