"""Judge tables with a filter alone, without pools or engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ibis
import pyarrow as pa
import pytest

from curate.features import column_owners, feature_class
from curate.recipe import NamedFilter
from curate.select import _row_verdicts
from filters.contract import Filter, PoolFilter

Judge = Callable[[Filter, Sequence[dict[str, Any]]], dict[str, tuple[str, str | None]]]


def column_type(name: str) -> pa.DataType:
    if name in ("clip_image", "clip_text"):
        return pa.list_(pa.float32())
    return feature_class(column_owners()[name])().arrow_schema().field(name).type


@pytest.fixture
def judge() -> Judge:
    """Give a filter rows of columns; get what it drops: uid to (reason, duplicate_of)."""

    def run(filter: Filter, rows: Sequence[dict[str, Any]]) -> dict[str, tuple[str, str | None]]:
        names = [*filter.reads]
        table = pa.table(
            {
                "row": pa.array(range(len(rows)), pa.int64()),
                "uid": pa.array([row.get("uid", f"u{n:03d}") for n, row in enumerate(rows)], pa.string()),
                **{name: pa.array([row.get(name) for row in rows], column_type(name)) for name in names},
            }
        )
        connection = ibis.duckdb.connect()
        connection.con.register("rows", table)
        t = connection.table("rows")
        if isinstance(filter, PoolFilter):
            found = filter.drops(t)
            verdicts = found if isinstance(found, pa.Table) else found.to_pyarrow()
        else:
            verdicts = _row_verdicts([NamedFilter("it", filter)], t).to_pyarrow()
        uids = table["uid"].to_pylist()
        return {uids[v["row"]]: (v["reason"], v["duplicate_of"]) for v in verdicts.to_pylist()}

    return run
