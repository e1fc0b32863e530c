"""Select: run a recipe's filters in order on the survivors, and say of every sample whether it stays and why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from curate.engines import Engine
from curate.errors import WorkError
from curate.measure import ERROR, ShardTask
from curate.recipe import NamedFilter, Recipe
from curate.storage import Folder
from filters.contract import VERDICTS, Columns, PoolFilter, RowFilter

SELECTION = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("keep", pa.bool_(), nullable=False),
        pa.field("filter", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("duplicate_of", pa.string()),
    ]
)
UNREADABLE = "unreadable"
ROW_GROUP = 1 << 17


@dataclass(frozen=True)
class FunnelStep:
    """What one filter did: samples that came in, that it dropped, and that went on."""

    filter: str
    samples_in: int
    dropped: int
    samples_out: int
    seconds: float

    def as_dict(self) -> dict[str, object]:
        values = asdict(self)
        return {"filter": values["filter"], "in": values["samples_in"], "dropped": values["dropped"],
                "out": values["samples_out"], "seconds": round(values["seconds"], 3)}  # fmt: skip


@dataclass(frozen=True)
class Selection:
    """The verdicts, still in the engine, and the funnel."""

    table: ir.Table
    funnel: tuple[FunnelStep, ...]

    @property
    def samples(self) -> int:
        return self.funnel[0].samples_in

    @property
    def kept(self) -> int:
        return self.funnel[-1].samples_out


def select(engine: Engine, tasks: Sequence[ShardTask], recipe: Recipe) -> Selection:
    """Decide on every sample of measured shards.

    Filters run in recipe order, each on what the ones before it kept, so the first that drops a sample owns
    the reason. Consecutive row filters are one pass over the rows.
    """
    wide = _wide_columns(tasks)
    narrow = sorted({c for step in recipe.filters for c in step.filter.reads} - wide)
    rows = engine.table(tasks, ["uid", "key", ERROR, *[c for c in narrow if c not in ("uid", "key")]])
    base = rows.select("row", "uid", "shard", "key")
    alive = rows.select("row")
    verdicts: list[ir.Table] = []
    funnel: list[FunnelStep] = []
    count = int(rows.count().execute())
    for stage in _stages(recipe):
        began = time.perf_counter()
        first = stage[0].filter
        if isinstance(first, PoolFilter):
            source = rows.semi_join(alive, "row")
            if heavy := [c for c in first.reads if c in wide]:
                source = source.join(engine.table(tasks, heavy).drop("shard"), "row")
            dropped = _pool_verdicts(stage[0], source)
        else:
            dropped = _row_verdicts(stage, rows.semi_join(alive, "row"))
        dropped = engine.keep(dropped)
        counts = {r["filter"]: r["n"] for r in _counts(dropped)}
        seconds = (time.perf_counter() - began) / len(stage)
        for step in stage:
            lost = counts.get(step.name, 0)
            funnel.append(FunnelStep(step.name, count, lost, count - lost, seconds))
            count -= lost
        verdicts.append(dropped)
        if counts:
            alive = engine.keep(alive.anti_join(dropped, "row"))
    return Selection(_selection(base, verdicts), tuple(funnel))


def write_selection(selection: Selection, folder: Folder, name: str = "selection.parquet") -> None:
    """Write the verdicts in pool order; the same verdicts give the same bytes, whatever the engine."""
    ordered = selection.table.order_by("row").drop("row")
    rows = 0
    with folder.writing(name) as part, pq.ParquetWriter(part, SELECTION, compression="zstd") as writer:
        pending: list[pa.RecordBatch] = []
        for batch in ordered.to_pyarrow_batches(chunk_size=ROW_GROUP):
            rows += len(batch)
            pending.append(batch)
            if sum(len(b) for b in pending) >= ROW_GROUP:
                table = pa.Table.from_batches(pending).cast(SELECTION)
                whole = len(table) // ROW_GROUP * ROW_GROUP
                writer.write_table(table.slice(0, whole), row_group_size=ROW_GROUP)
                pending = table.slice(whole).to_batches()
        if pending:
            writer.write_table(pa.Table.from_batches(pending).cast(SELECTION), row_group_size=ROW_GROUP)
    if rows != selection.samples:
        raise WorkError(f"{name}: {rows} verdicts for {selection.samples} samples; this is a bug of a filter")


class _Unreadable(RowFilter):
    """Drops what could not be read; always first, and no recipe names it."""

    @property
    def reads(self) -> tuple[str, ...]:
        return (ERROR,)

    def keep(self, t: Columns) -> ir.BooleanValue:
        return t.error.isnull()

    def reason(self, t: Columns) -> ir.StringValue:
        return t.error


def _stages(recipe: Recipe) -> list[list[NamedFilter]]:
    """Row filters that follow each other together, each pool filter alone."""
    stages = [[NamedFilter(UNREADABLE, _Unreadable())]]
    for step in recipe.filters:
        if isinstance(step.filter, RowFilter) and isinstance(stages[-1][0].filter, RowFilter):
            stages[-1].append(step)
        else:
            stages.append([step])
    return stages


def _wide_columns(tasks: Sequence[ShardTask]) -> set[str]:
    """Columns that hold a list per sample: read only for the filter that needs them."""
    features = [feature for _, feature in tasks[0].features]
    return {field.name for feature in features for field in feature.arrow_schema() if pa.types.is_nested(field.type)}


def _row_verdicts(stage: Sequence[NamedFilter], rows: ir.Table) -> ir.Table:
    """The first of some row filters that drops a sample, with its reason."""
    failed, reasons = [], []
    for step in stage:
        assert isinstance(step.filter, RowFilter)
        t = Columns(rows, step.filter.reads)
        drop = ~step.filter.keep(t).fill_null(False)
        missing = f"not measured: {', '.join(step.filter.reads)}"
        failed.append((drop, ibis.literal(step.name)))
        reasons.append((drop, step.filter.reason(t).fill_null(missing)))
    judged = rows.select("row", filter=ibis.cases(*failed), reason=ibis.cases(*reasons))
    return judged.filter(judged["filter"].notnull()).mutate(duplicate_of=ibis.null("string"))


def _pool_verdicts(step: NamedFilter, rows: ir.Table) -> ir.Table | pa.Table:
    assert isinstance(step.filter, PoolFilter)
    found = step.filter.drops(rows.select("row", "uid", *step.filter.reads))
    if isinstance(found, pa.Table):
        return found.select(VERDICTS.names).add_column(1, "filter", pa.repeat(step.name, len(found)))
    return found.select("row", "reason", "duplicate_of").mutate(filter=ibis.literal(step.name))


def _counts(dropped: ir.Table) -> list[dict]:
    return dropped.group_by("filter").agg(n=dropped.count()).to_pyarrow().to_pylist()


def _selection(base: ir.Table, verdicts: Sequence[ir.Table]) -> ir.Table:
    columns = ["row", "filter", "reason", "duplicate_of"]
    dropped = ibis.union(*[v.select(*columns) for v in verdicts]) if len(verdicts) > 1 else verdicts[0]
    joined = base.left_join(dropped.select(*columns).rename(dropped_row="row"), [("row", "dropped_row")])
    return joined.select("row", "uid", "shard", "key", "filter", "reason", "duplicate_of",
                         keep=joined.dropped_row.isnull()).select("row", *SELECTION.names)  # fmt: skip
