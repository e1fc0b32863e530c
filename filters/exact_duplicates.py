"""Drop all but one of the samples that hold the same image file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters._columns import Keys, Texts
from filters._memory import MOST_ROWS, Decision, Past, RememberingFilter, Run
from filters._shingles import mix
from filters.contract import GENERATION, VERDICTS, text

BATCH = 1 << 16
SAID = "same image file as a kept sample"


class ExactDuplicates(RememberingFilter):
    """Of images with equal SHA-256 one stays: the one with the `highest_clip_score`, or the `first` by uid."""

    keep: Literal["first", "highest_clip_score"] = "first"

    @property
    def reads(self) -> tuple[str, ...]:
        return ("sha256",) if self.keep == "first" else ("sha256", "clip_score")

    def drops(self, t: ir.Table) -> ir.Table:
        # Only the samples whose digest comes twice are ranked; that is told from a number for each digest.
        coded = t.filter(t.sha256.notnull()).mutate(_code=t.sha256.hash())
        twice = coded.group_by("_code").having(ibis._.count() > 1).agg(n=ibis._.count())
        some = coded.semi_join(twice, "_code")
        order = [some.uid, some.row]
        if self.keep == "highest_clip_score":
            order.insert(0, some.clip_score.fill_null(-2).desc())
        if GENERATION in t.columns:
            order.insert(0, some[GENERATION])
        alike = ibis.window(group_by=some.sha256, order_by=order)
        ranked = some.mutate(place=ibis.row_number().over(alike), survivor=some.uid.first().over(alike))
        copies = ranked.filter(ranked.place > 0)
        return copies.select("row", reason=text(SAID), duplicate_of=copies.survivor)

    def drops_after(self, t: ir.Table, past: Past) -> Decision:
        known = t.filter(t.sha256.notnull())
        row, of = _known_before(known, past)
        rest = known.anti_join(ibis.memtable(pa.table({"row": row})), "row") if len(row) else known
        old = pa.table([row, pa.repeat(pa.scalar(SAID, pa.string()), len(row)), of], schema=VERDICTS)
        new = self.drops(rest).to_pyarrow().select(VERDICTS.names).cast(VERDICTS)
        verdicts = pa.concat_tables([old, new])
        return Decision(verdicts, len(pc.unique(old["duplicate_of"])), lambda: _runs(known, verdicts["row"], past.rows))


def _known_before(known: ir.Table, past: Past) -> tuple[np.ndarray, pa.Array]:
    """The rows whose file an earlier sample has (n,), and those samples' uids (n,)."""
    rows, uids = [np.zeros(0, np.int64)], [pa.array([], pa.string())]
    for batch in known.select("row", "sha256").to_pyarrow_batches(chunk_size=BATCH) if past.rows else ():
        coded = batch["sha256"].cast(pa.large_string()).dictionary_encode()
        keys = np.unique(text_keys(coded.dictionary))
        earlier = np.unique(past.ends("sha256_key", keys, first=4)[1])  # several have one key only by chance
        found = pc.index_in(coded.dictionary, value_set=past.texts("sha256", earlier)).take(coded.indices)
        rows.append(batch["row"].filter(found.is_valid()).to_numpy())
        uids.append(past.texts("uid", earlier).take(found.drop_null()).cast(pa.string()))
    return np.concatenate(rows), pa.concat_arrays(uids)


def _runs(known: ir.Table, dropped: pa.ChunkedArray, first: int) -> Iterator[Run]:
    """The digests and uids of the samples that stay, in pool order."""
    gone = np.sort(dropped.to_numpy())
    waiting: list[pa.Table] = []
    for batch in known.select("row", "sha256", "uid").order_by("row").to_pyarrow_batches(chunk_size=BATCH):
        stays = ~np.isin(batch["row"].to_numpy(), gone, assume_unique=True)
        waiting.append(pa.Table.from_batches([batch]).filter(pa.array(stays)))
        if sum(map(len, waiting)) > MOST_ROWS - BATCH:
            yield _run(pa.concat_tables(waiting), first)
            first += sum(map(len, waiting))
            waiting = []
    if sum(map(len, waiting)):
        yield _run(pa.concat_tables(waiting), first)


def _run(rows: pa.Table, first: int) -> Run:
    key = Keys.of(text_keys(rows["sha256"].combine_chunks()))
    columns = {"sha256_key": key, "sha256": Texts.of(rows["sha256"]), "uid": Texts.of(rows["uid"])}
    return Run(first, len(rows), columns)


def text_keys(texts: pa.Array) -> np.ndarray:
    """A number for each text, of its first 16 bytes: texts without nulls (n,) to uint64 (n,)."""
    words = np.array(texts.cast(pa.large_binary()).to_pylist(), "S16").view(np.uint64).reshape(-1, 2)
    return mix(words[:, 0] ^ mix(words[:, 1]))
