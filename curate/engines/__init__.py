"""Engines: where shard functions run and filters are evaluated. `local` needs nothing but pip; `spark` scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from curate.errors import RequestError
from curate.measure import ERROR, ShardTask, read_features

Task = TypeVar("Task")
Result = TypeVar("Result")
NAMES = ("local", "spark")
SCATTERED = 2147483647
ROW = "row"
"""A sample's place in the pool: its shard's number above, its row in the shard in the lower 32 bits."""


class Survivors(Protocol):
    """The samples of a pool that no filter has dropped yet. It never changes: `without` gives another one."""

    def table(self, columns: Sequence[str], once: bool = False) -> ir.Table:
        """`row` and the columns of these samples, to build expressions on; `once` if it is read a single time."""

    def without(self, dropped: ir.Table) -> Survivors:
        """Those whose `row` is not in a kept table."""

    def some(self, count: int) -> np.ndarray:
        """`row` of at most `count` of these samples, int64: those that `scattered` puts first, alike on any engine."""

    def shared(self, other: Survivors) -> int:
        """How many samples are among the survivors of another selection of the same pool too."""


class Engine(Protocol):
    """Runs the same picklable functions and Ibis expressions, whatever it is built on."""

    workers: int

    def gpu_here(self) -> bool:
        """Whether this process should feed the models: it has a GPU, and the shards are measured beside it."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task], light: bool = False) -> Iterator[Result]:
        """Run a function on every task, in any order; the first failure ends the run with `WorkError`.

        `light` work waits for files and lets go of the interpreter: threads do, where a process would cost its start.
        """

    def samples(self, tasks: Sequence[ShardTask]) -> Survivors:
        """All samples of measured shards."""

    def keep(self, table: ir.Table | pa.Table) -> ir.Table:
        """Work an expression out once and keep its rows, so that what is built on it does not do so again."""

    def forget(self, but: Sequence[ir.Table]) -> None:
        """Drop the tables made since the last call but for these; earlier ones stay."""

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


def scattered(row: Any) -> Any:
    """A number below `SCATTERED` for a `row`, to draw some by: the same in numpy and in any engine's integers."""
    return (row % SCATTERED) * 1664525 % SCATTERED


def numbered_rows(number: int, task: ShardTask, columns: Sequence[str]) -> pa.Table:
    """The columns of the pool's shard `number`, with `row` before them."""
    table = read_features(task, columns)
    return table.add_column(0, ROW, row_numbers(number, len(table)))


def row_numbers(number: int, samples: int) -> pa.Array:
    """`row` of the samples of the pool's shard `number`."""
    return pa.array(np.arange(samples, dtype=np.int64) + (number << 32))


def schema_of(tasks: Sequence[ShardTask], columns: Sequence[str]) -> pa.Schema:
    """The schema of `numbered_rows`."""
    types = {f.name: f.type for _, feature in reversed(tasks[0].features) for f in feature.arrow_schema()}
    types[ERROR] = pa.string()
    return pa.schema([pa.field(ROW, pa.int64()), *[pa.field(name, types[name]) for name in columns]])
