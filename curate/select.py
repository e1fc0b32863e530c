"""Select: run a recipe's filters in order on the survivors, and say of every sample whether it stays and why."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from curate.engines import SCATTERED, Engine, scattered
from curate.engines.scan import row_counts
from curate.measure import ERROR, ShardTask
from curate.recipe import NamedFilter, Recipe
from curate.selection import STEP, FunnelStep, Selection, write_selection
from filters._memory import Decision, Past, RememberingFilter
from filters.contract import GENERATION, VERDICTS, Columns, PoolFilter, RowFilter

__all__ = ["FunnelStep", "Selection", "decide_more", "select", "undecided", "write_selection"]
UNREADABLE = "unreadable"
LARGE, SHARE = 1_000_000, 16
"""Of a pool of more samples than this, one drop in so many gets its reason where not every one is wanted."""
ENOUGH = 20
"""Drops of a filter that have one, or else all get theirs."""


class Memory(Protocol):
    """What filters remember of samples that are not in the pool."""

    def past(self, name: str) -> Past:
        """What the filter of a name remembers."""

    def remember(self, name: str, decision: Decision) -> None:
        """Keep what it is to remember of this pool."""


def select(
    engine: Engine,
    tasks: Sequence[ShardTask],
    recipe: Recipe,
    every_reason: bool = True,
    memory: Memory | None = None,
    generations: Sequence[int] = (),
) -> Selection:
    """Decide on every sample of measured shards: first whether it could be read, then the recipe's filters.

    Filters run in recipe order, each on what the ones before it kept, so the first that drops a sample owns
    the reason. Consecutive row filters are one pass over the rows. Without `every_reason` most of what a large
    pool drops gets none: enough for a preview, but such a selection cannot be written.

    With `memory` samples are judged after all that it knows. `generations` has, in ascending order, the numbers of
    shards with which a generation begins whose samples go for those before them, and never the other way round.
    """
    filters = every_filter(recipe)
    return decide_more(engine, undecided(engine, tasks), filters, every_reason, memory, generations)


def every_filter(recipe: Recipe) -> list[NamedFilter]:
    """The recipe's filters, and before them the one that drops what could not be read."""
    return [NamedFilter(UNREADABLE, _Unreadable()), *recipe.filters]


def undecided(engine: Engine, tasks: Sequence[ShardTask]) -> Selection:
    """The selection before the first filter."""
    return Selection(tasks, int(row_counts(tasks).sum()), engine.samples(tasks))


def decide_more(
    engine: Engine,
    selection: Selection,
    filters: Sequence[NamedFilter],
    every_reason: bool = True,
    memory: Memory | None = None,
    generations: Sequence[int] = (),
) -> Selection:
    """Run some more filters on who is left."""
    few = not every_reason and selection.samples > LARGE
    selection = replace(selection, told=selection.told and not few)
    for stage in _stages(filters):
        selection = _decide(engine, selection, stage, few, memory, generations)
    return selection


def _decide(
    engine: Engine,
    before: Selection,
    stage: Sequence[NamedFilter],
    few: bool,
    memory: Memory | None,
    generations: Sequence[int],
) -> Selection:
    began = time.perf_counter()
    reads = dict.fromkeys(column for step in stage for column in step.filter.reads)
    first = len(before.funnel)
    found: ir.Table | pa.Table
    if isinstance(stage[0].filter, PoolFilter):
        rows = before.alive.table(list(dict.fromkeys(["uid", *reads])))
        found = _pool_verdicts(stage[0], rows, first, memory, generations)
    else:
        found = _row_verdicts(stage, before.alive.table(list(reads), once=True), first)
    dropped = engine.keep(_told(found) if few else found)
    told = _counts(dropped)
    if few and any(row["told"] < min(row["n"], ENOUGH) for row in told):
        dropped = engine.keep(found)
    counts = {row[STEP]: row["n"] for row in told}
    alive = before.alive.without(dropped) if counts else before.alive
    engine.forget(but=[dropped])
    seconds = (time.perf_counter() - began) / len(stage)
    funnel, count = [*before.funnel], before.kept
    for number, step in enumerate(stage, first):
        lost = counts.get(number, 0)
        funnel.append(FunnelStep(step.name, count, lost, count - lost, seconds))
        count -= lost
    tables = (*before.dropped, dropped) if counts else before.dropped
    return replace(before, alive=alive, dropped=tables, funnel=tuple(funnel))


class _Unreadable(RowFilter):
    """Drops what could not be read; always first, and no recipe names it."""

    @property
    def reads(self) -> tuple[str, ...]:
        return (ERROR,)

    def keep(self, t: Columns) -> ir.BooleanValue:
        return t.error.isnull()

    def reason(self, t: Columns) -> ir.StringValue:
        return t.error


def _stages(filters: Sequence[NamedFilter]) -> Iterator[list[NamedFilter]]:
    """Row filters that follow each other together, each pool filter alone."""
    together: list[NamedFilter] = []
    for step in filters:
        if isinstance(step.filter, RowFilter):
            together.append(step)
            continue
        if together:
            yield together
        yield [step]
        together = []
    if together:
        yield together


def _row_verdicts(stage: Sequence[NamedFilter], rows: ir.Table, first: int = 0) -> ir.Table:
    """The first of some row filters that drops a sample, with its reason."""
    failed, reasons = [], []
    for number, step in enumerate(stage, first):
        assert isinstance(step.filter, RowFilter)
        keep = step.filter.keep(Columns(rows, step.filter.reads))
        failed.append((~keep.fill_null(False), ibis.literal(number, "int32")))
    judged = rows.mutate(_step=ibis.cases(*failed))
    judged = judged.filter(judged["_step"].notnull())
    for number, step in enumerate(stage, first):
        assert isinstance(step.filter, RowFilter)
        missing = f"not measured: {', '.join(step.filter.reads)}"
        said = step.filter.reason(Columns(judged, step.filter.reads)).fill_null(missing)
        reasons.append((judged["_step"] == number, said))
    return judged.select("row", step="_step", reason=ibis.cases(*reasons), duplicate_of=ibis.null("string"))


def _pool_verdicts(
    step: NamedFilter, rows: ir.Table, number: int, memory: Memory | None, generations: Sequence[int]
) -> ir.Table | pa.Table:
    assert isinstance(step.filter, PoolFilter)
    t = rows.select("row", "uid", *(c for c in step.filter.reads if c != "uid"))
    if memory is not None and isinstance(step.filter, RememberingFilter):
        decision = step.filter.drops_after(t, memory.past(step.name))
        memory.remember(step.name, decision)
        found = decision.verdicts
    elif generations and isinstance(step.filter, RememberingFilter):
        later = [ibis.ifelse(t.row >= shard << 32, 1, 0) for shard in generations]
        found = step.filter.drops(t.mutate(**{GENERATION: sum(later[1:], later[0]).cast("int64")}))
    else:
        found = step.filter.drops(t)
    if isinstance(found, pa.Table):
        return found.select(VERDICTS.names).add_column(1, STEP, pa.repeat(pa.scalar(number, pa.int32()), len(found)))
    return found.select("row", step=ibis.literal(number, "int32"), reason=found.reason, duplicate_of=found.duplicate_of)


def _counts(dropped: ir.Table) -> list[dict]:
    return dropped.group_by(STEP).agg(n=dropped.count(), told=dropped.reason.count()).to_pyarrow().to_pylist()


def _told(found: ir.Table | pa.Table) -> ir.Table | pa.Table:
    """Verdicts of which one in `SHARE` has its reason: to put a reason into words costs more than to decide."""
    if isinstance(found, pa.Table):
        return found
    reason = ibis.ifelse(scattered(found.row) < SCATTERED // SHARE, found.reason, ibis.null("string"))
    return found.mutate(reason=reason)
