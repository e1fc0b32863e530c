"""The cluster engine: Spark moves shard names, counts and columns; images stay where they are."""

from __future__ import annotations

import os
import pickle
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from curate.engines import ROW, Survivors, numbered_rows, scattered, schema_of
from curate.engines.scan import row_counts
from curate.errors import RequestError, WorkError
from curate.measure import ShardTask

Task = TypeVar("Task")
Result = TypeVar("Result")


class SparkEngine:
    """Runs the shard functions and the filters' expressions on PySpark.

    The session is the one that runs already, or one made from `SPARK_REMOTE`/`spark-submit` settings; on a
    bare machine, a local one with `workers` threads.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or 1
        try:
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise RequestError("--engine spark: pyspark is not installed; install curate[spark]") from error
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = SparkSession.builder.appName("curate").config("spark.sql.session.timeZone", "UTC")
        if SparkSession.getActiveSession() is None and "SPARK_REMOTE" not in os.environ:
            builder = builder.config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false")
            if not {"MASTER", "PYSPARK_GATEWAY_PORT"} & os.environ.keys():  # the second is spark-submit's
                builder = builder.master(f"local[{workers or '*'}]")
        try:
            self._spark: Any = builder.getOrCreate()
        except Exception as error:  # py4j's own classes, or a RuntimeError without Java
            raise RequestError(
                "--engine spark: Spark did not start; it needs Java 17 or 21 on the PATH or in JAVA_HOME "
                f"({str(error).splitlines()[0][:200]})"
            ) from error
        self._connection = ibis.pyspark.connect(self._spark)
        self._views: list[str] = []
        self._old = 0

    def gpu_here(self) -> bool:
        return False  # its executors have the GPUs

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task], light: bool = False) -> Iterator[Result]:
        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for pickled in batch.column(0).to_pylist():
                    result = pickle.dumps(function(pickle.loads(pickled)))  # noqa: S301 our own task
                    yield pa.record_batch([pa.array([result], pa.binary())], ["result"])

        frame = self._frame([(bytearray(pickle.dumps(task)),) for task in tasks], "task binary")
        for row in self._done(frame.mapInArrow(run, "result binary")).toLocalIterator():
            yield pickle.loads(bytes(row["result"]))  # noqa: S301 our own result

    def samples(self, tasks: Sequence[ShardTask]) -> SparkSurvivors:
        return SparkSurvivors(self, tasks, ())

    def rows(self, tasks: Sequence[ShardTask], columns: Sequence[str]) -> Any:
        """A frame of `row` and columns, read by the executors."""
        wanted = tuple(columns)
        readable = pa.schema([_for_spark(field) for field in schema_of(tasks, wanted)])

        def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for pickled in batch.column(0).to_pylist():
                    number, task = pickle.loads(pickled)  # noqa: S301 our own task
                    yield from _signed(numbered_rows(number, task, wanted), readable).to_batches()

        from pyspark.sql.pandas.types import from_arrow_schema

        numbered = [(bytearray(pickle.dumps(pair)),) for pair in enumerate(tasks)]
        return self._frame(numbered, "task binary").mapInArrow(read, from_arrow_schema(readable))

    def keep(self, table: ir.Table | pa.Table) -> ir.Table:
        if isinstance(table, pa.Table):
            return self.view(self._spark.createDataFrame(table).cache())
        return self.view(self._spark.sql(self._connection.compile(table)).cache())

    def view(self, frame: Any) -> ir.Table:
        """A frame to build expressions on."""
        self._views.append(f"curate_{uuid.uuid4().hex[:8]}")
        frame.createOrReplaceTempView(self._views[-1])
        return self._connection.table(self._views[-1])

    def _frame(self, rows: list, schema: str) -> Any:
        return self._spark.createDataFrame(rows, schema).repartition(max(1, len(rows)))

    def _done(self, frame: Any) -> Any:
        """Run a frame to its end and keep its rows, so that reading them cannot run it twice."""
        try:
            frame = frame.cache()
            frame.count()
        except Exception as error:
            raise WorkError(f"a Spark task failed: {str(error).strip().splitlines()[-1][:300]}") from error
        return frame

    def forget(self, but: Sequence[ir.Table]) -> None:
        staying = {table.get_name() for table in but}
        for name in [name for name in self._views[self._old :] if name not in staying]:
            self._remove(name)
        self._old = len(self._views)

    def close(self) -> None:
        for name in [*self._views]:
            self._remove(name)

    def _remove(self, name: str) -> None:
        self._spark.table(name).unpersist()
        self._spark.catalog.dropTempView(name)
        self._views.remove(name)


@dataclass(frozen=True)
class SparkSurvivors:
    """The samples of shards but for those in some tables."""

    engine: SparkEngine
    tasks: Sequence[ShardTask]
    dropped: tuple[ir.Table, ...]

    def table(self, columns: Sequence[str], once: bool = False) -> ir.Table:
        frame = self.engine.rows(self.tasks, columns)
        rows = self.engine.view(frame if once else frame.cache())
        for dropped in self.dropped:
            rows = rows.anti_join(dropped, ROW)
        return rows

    def without(self, dropped: ir.Table) -> SparkSurvivors:
        return SparkSurvivors(self.engine, self.tasks, (*self.dropped, dropped))

    def some(self, count: int) -> np.ndarray:
        rows = self.table(["uid"], once=True).select(ROW)
        found = rows.order_by([scattered(rows.row), rows.row]).limit(count).to_pyarrow()
        return found[ROW].to_numpy()

    def shared(self, other: Survivors) -> int:
        assert isinstance(other, SparkSurvivors)
        samples = int(row_counts(self.tasks).sum())
        if not (tables := [table.select(ROW) for table in (*self.dropped, *other.dropped)]):
            return samples
        gone = ibis.union(*tables, distinct=True) if len(tables) > 1 else tables[0]
        return samples - int(gone.count().to_pyarrow().as_py())


def _for_spark(field: pa.Field) -> pa.Field:
    """Spark has neither unsigned integers nor half-precision floats nor lists of a fixed size."""
    kind = field.type
    if pa.types.is_fixed_size_list(kind):
        inner = _for_spark(pa.field("item", kind.value_type)).type
        return pa.field(field.name, pa.list_(inner))
    signed = {pa.uint64(): pa.int64(), pa.uint32(): pa.int32(), pa.uint16(): pa.int16(), pa.uint8(): pa.int8()}
    signed[pa.float16()] = pa.float32()
    return pa.field(field.name, signed.get(kind, kind))


def _signed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast to Spark's types; unsigned integers keep their bits."""
    return pa.table([_cast(table[f.name].combine_chunks(), f.type) for f in schema], schema=schema)


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        values = _cast(array.values.slice(array.offset * size, len(array) * size), kind.value_type)
        fixed = pa.FixedSizeListArray.from_arrays(values, size, mask=array.is_null())
        return fixed.cast(kind)
    if pa.types.is_unsigned_integer(array.type):
        return array.view(kind)
    return array.cast(kind)
