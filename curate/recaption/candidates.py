"""Who gets new captions: samples for which a condition over feature columns holds, or that a curation dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, field_validator

from curate.engines import ROW, Engine
from curate.errors import RequestError
from curate.hashing import uid_hashes
from curate.measure import ERROR, ShardTask
from curate.recaption.expression import parse_condition
from curate.report.finished import open_finished
from curate.shards import NO_CAPTION
from filters.contract import Columns, RowFilter

SELECTION = "selection.parquet"
ALWAYS = ("image_size", "caption", "width")
"""What must be known of any sample: that it has an image, which can be opened, and what its caption is."""


class Dropped(BaseModel):
    """Samples that filters of a finished curation of the same pool dropped: they get another chance."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    of: str
    """OUT of `curate filter`."""
    by: tuple[str, ...] = Field(min_length=1)
    """Names of filters, as `selection.parquet` has them."""

    @field_validator("by", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class Candidates(RowFilter):
    """The condition in a filter's clothes, by which its columns imply features as in any recipe."""

    condition: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        named = parse_condition(self.condition).columns if self.condition else ()
        return tuple(dict.fromkeys((*ALWAYS, *(name for name in named if name not in ("uid", "key", ERROR)))))

    def keep(self, t: Columns) -> ir.BooleanValue:
        raise NotImplementedError("candidates are found by find_candidates, which has the whole table")

    def reason(self, t: Columns) -> ir.StringValue:
        raise NotImplementedError("it drops nothing")


def find_candidates(
    engine: Engine,
    tasks: Sequence[ShardTask],
    condition: str | None,
    dropped: Dropped | None,
    needs_image: bool,
    field: str = "candidates",
) -> np.ndarray:
    """`row` of the samples that get new captions, in pool order: int64 (n,), see `curate.engines.ROW`.

    They have a readable image (for a backend that `needs_image`; else a caption), the condition is true of them (where
    it is null they are none), and the curation dropped them, if one is given. A sample that lacks nothing but a
    caption is one too: it gets its first.

    Raises:
        RequestError: the condition compares what cannot be compared, or the curation is none; names the field.
    """
    reads = Candidates(condition=condition).reads
    named = dict.fromkeys(["uid", "key", ERROR, *reads])
    rows = engine.samples(tasks).table(list(named))
    if needs_image:
        fit = (rows.image_size > 0) & (rows[ERROR].isnull() | rows[ERROR].startswith(NO_CAPTION))
    else:
        fit = rows[ERROR].isnull() & rows.caption.notnull()
    rows = rows.filter(fit)
    if condition is not None:
        try:
            rows = rows.filter(parse_condition(condition).on(rows).fill_null(False))
        except ValueError as error:
            raise RequestError(f"{field}: {error}") from error
    if dropped is not None:
        return _dropped(rows, dropped)
    found = rows.select(ROW).to_pyarrow()[ROW].to_numpy()
    engine.forget(but=[])
    return np.sort(found)


def _dropped(rows: ir.Table, dropped: Dropped) -> np.ndarray:
    """Those of some samples that a curation dropped, told by hashes of their uids: 8 bytes a sample are held."""
    folder, manifest = open_finished(dropped.of)
    there = [step["filter"] for step in manifest["funnel"]]
    if unknown := [name for name in dropped.by if name not in there]:
        raise RequestError(f"dropped.by: {dropped.of} has no filter {unknown[0]!r}; it has {', '.join(there)}")
    hashes = []
    with folder.local_copy(SELECTION) as path:
        for batch in pq.ParquetFile(path).iter_batches(1 << 17, columns=["uid", "filter"]):
            mine = pa.compute.is_in(batch["filter"], pa.array(dropped.by))
            hashes.append(uid_hashes(batch["uid"].filter(mine)))
    wanted = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
    found = []
    for batch in rows.select(ROW, "uid").to_pyarrow_batches():
        found.append(batch[ROW].to_numpy()[np.isin(uid_hashes(batch["uid"]), wanted)])
    return np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)
