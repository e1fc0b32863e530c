"""The same rows judged night after night, with a state on disk between, and in one run with generations."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from curate.kept.state import RunFact, State
from filters._memory import Past, RememberingFilter
from filters.contract import GENERATION
from tests.filters.conftest import column_type

Row = dict[str, Any]
Said = dict[str, tuple[str, str | None]]
"""What is dropped: uid to (reason, duplicate_of)."""


def table(filter: RememberingFilter, rows: Sequence[Row], **more: Sequence[int]) -> ir.Table:
    """Rows as a filter sees them."""
    found = {
        "row": pa.array(range(len(rows)), pa.int64()),
        "uid": pa.array([row["uid"] for row in rows], pa.string()),
        **{name: pa.array([row.get(name) for row in rows], column_type(name)) for name in filter.reads},
        **{name: pa.array(values, pa.int64()) for name, values in more.items()},
    }
    connection = ibis.duckdb.connect(threads=1)
    connection.con.register("rows", pa.table(found))
    return connection.table("rows")


def said(verdicts: ir.Table | pa.Table, rows: Sequence[Row]) -> Said:
    found = verdicts if isinstance(verdicts, pa.Table) else verdicts.to_pyarrow()
    return {rows[v["row"]]["uid"]: (v["reason"], v["duplicate_of"]) for v in found.to_pylist()}


def one_run(filter: RememberingFilter, nights: Sequence[Sequence[Row]]) -> Said:
    """All rows at once, those of earlier nights first."""
    rows = [row for night in nights for row in night]
    generation = [number for number, night in enumerate(nights) for _ in night]
    return said(filter.drops(table(filter, rows, **{GENERATION: generation})), rows)


def night_after_night(filter: RememberingFilter, nights: Sequence[Sequence[Row]]) -> Said:
    """One night after the other, each with what the ones before it left on disk."""
    found: Said = {}
    with tempfile.TemporaryDirectory() as folder:
        state = State(f"{folder}/state")
        runs: list[RunFact] = []
        for number, night in enumerate(nights):
            past = Past(tuple(state.run("it", fact) for fact in runs))
            decision = filter.drops_after(table(filter, night), past)
            found |= said(decision.verdicts, night)
            runs += [state.write_run("it", run, str(number)) for run in decision.remember()]
            runs = state.put_together("it", runs, f"{number}m")
    return found
