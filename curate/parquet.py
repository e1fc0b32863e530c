"""Parquet files written a group of rows at a time."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 4096
"""Rows: with every feature measured some 10 MiB, which is what writing holds."""
PROBED = 1000


class RowGroups:
    """Tables of one schema, one after the other, in a file whose row groups do not depend on how they came."""

    def __init__(self, path: str) -> None:
        self.rows = 0
        self._path = path
        self._waiting: list[pa.Table] = []
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> RowGroups:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write(ROW_GROUP - 1)
        if self._writer is not None:
            self._writer.close()

    def add(self, table: pa.Table) -> None:
        """Append rows; of the first ones it is told how the columns are best written."""
        if self._writer is None:
            schema = table.schema.remove_metadata()
            self._writer = pq.ParquetWriter(self._path, schema, **options(table))
        self._waiting.append(table)
        self.rows += len(table)
        self._write(0)

    def note(self, facts: dict[str, str]) -> None:
        """Put facts into the footer."""
        assert self._writer is not None, "a file needs a table before its facts"
        self._writer.add_key_value_metadata(facts)

    def _write(self, short: int) -> None:
        """Write the groups that are full, or lack at most `short` rows."""
        waiting = sum(map(len, self._waiting))
        if self._writer is None or waiting == 0 or waiting + short < ROW_GROUP:
            return
        table = pa.concat_tables(self._waiting)
        done = waiting if short else waiting - waiting % ROW_GROUP
        self._writer.write_table(table.slice(0, done), row_group_size=ROW_GROUP)
        self._waiting = [table.slice(done)]


def options(table: pa.Table) -> dict[str, Any]:
    """How to write the columns of a table: a dictionary only costs time where nearly every value is another."""
    few = []
    for field in table.schema:
        if not pa.types.is_nested(field.type):
            probe = table[field.name].slice(0, PROBED)
            if len(probe.unique()) <= len(probe) // 2:
                few.append(field.name)
    return {"compression": "zstd", "compression_level": 1, "use_dictionary": few}
