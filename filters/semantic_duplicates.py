"""Drop images that say the same: embeddings within a small angle of each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from filters._columns import Keys, Texts, Values
from filters._groups import NOBODY, survivors
from filters._memory import Decision, Past, RememberingFilter, Run
from filters._vectors import nearest, unit
from filters.contract import GENERATION, VERDICTS

BLOCK = 4096  # samples compared at once: a matrix of 64 MiB
BATCH = 1 << 14
RUN_ROWS = 1 << 16  # embeddings remembered at once


@dataclass(frozen=True)
class Earlier:
    """What is remembered of a cluster, best first: unit vectors, float32 (n, d), whether they stayed, and uids (n,)."""

    vectors: np.ndarray
    kept: np.ndarray
    uids: pa.Array


class SemanticDuplicates(RememberingFilter):
    """Within a cluster, of images whose embeddings have a cosine above 1 - `epsilon`, one stays (SemDeDup, Abbas et
    al. 2023, arXiv:2303.09540).

    `keep` says which: the one `farthest` from the centroid (the paper's choice), `nearest` to it, or with the
    `highest_clip_score`; ties by uid. By the `greedy` rule a sample is dropped for a kept one, which
    `duplicate_of` names. By the `published` rule it is dropped for any that comes before it, even one that is
    dropped itself, as the paper's code does: more goes, and a sample may have no kept duplicate.

    One cluster at a time is in memory. A sample without an embedding is kept.
    """

    epsilon: float = Field(0.05, gt=0, lt=2)
    keep: Literal["farthest", "nearest", "highest_clip_score"] = "farthest"
    rule: Literal["greedy", "published"] = "greedy"
    column: str = "clip_image"

    @property
    def reads(self) -> tuple[str, ...]:
        extra = ("clip_score",) if self.keep == "highest_clip_score" else ()
        return (self.column, "cluster", "cluster_similarity", *extra)

    def drops(self, t: ir.Table) -> pa.Table:
        found = [self._of_cluster(rows, None) for rows in _clusters(self._known(t))]
        return pa.concat_tables(found) if found else VERDICTS.empty_table()

    def drops_after(self, t: ir.Table, past: Past) -> Decision:
        found, looked_at = [VERDICTS.empty_table()], 0
        for rows in _clusters(self._known(t)):
            earlier = _earlier(past, rows["cluster"][0].as_py())
            looked_at += 0 if earlier is None else len(earlier.kept)
            found.append(self._of_cluster(rows, earlier))
        verdicts = pa.concat_tables(found)
        return Decision(verdicts, looked_at, lambda: self._runs(self._known(t), verdicts["row"], past.rows))

    def _known(self, t: ir.Table) -> ir.Table:
        return t.filter(t.cluster.notnull() & t[self.column].notnull())

    def _of_cluster(self, rows: pa.Table, earlier: Earlier | None) -> pa.Table:
        rows = self._best_first(rows)
        vectors, decided, uids = unit(rows[self.column]), NOBODY, rows["uid"].combine_chunks()
        if earlier is not None:
            vectors, decided = np.concatenate([earlier.vectors, vectors]), earlier.kept
            uids = pa.concat_arrays([earlier.uids.cast(pa.string()), uids.cast(pa.string())])
        kept, cosine, of = decide(vectors, 1 - self.epsilon, self.rule == "published", decided)
        dropped = len(decided) + np.flatnonzero(~kept[len(decided) :])
        known = of[dropped] >= 0
        said = zip(cosine[dropped].tolist(), np.where(known, "kept", "dropped").tolist(), strict=True)
        reason = [f"cosine {value:.3f} to a {other} image, > {1 - self.epsilon:.3f}" for value, other in said]
        names = uids.take(pa.array(np.where(known, of[dropped], 0)))
        survivor = pc.if_else(pa.array(known), names, pa.scalar(None, pa.string()))
        here = rows["row"].take(pa.array(dropped - len(decided)))
        return pa.table([here, pa.array(reason, pa.string()), survivor], schema=VERDICTS)

    def _best_first(self, rows: pa.Table) -> pa.Table:
        keys = {
            "farthest": ("cluster_similarity", "ascending"),
            "nearest": ("cluster_similarity", "descending"),
            "highest_clip_score": ("clip_score", "descending"),
        }
        order = [keys[self.keep], ("uid", "ascending"), ("row", "ascending")]
        if GENERATION in rows.column_names:
            order.insert(0, (GENERATION, "ascending"))
        return rows.take(pc.sort_indices(rows, sort_keys=order))

    def _runs(self, known: ir.Table, dropped: pa.ChunkedArray, first: int) -> Iterator[Run]:
        """The embeddings of each cluster, best first: of the samples that stay, or by the published rule of all."""
        gone, waiting = np.sort(dropped.to_numpy()), list[pa.Table]()
        for rows in _clusters(known):
            stays = ~np.isin(rows["row"].to_numpy(), gone)
            rows = self._best_first(rows.append_column("stays", pa.array(stays)))
            waiting.append(rows if self.rule == "published" else rows.filter(rows["stays"]))
            if sum(map(len, waiting)) >= RUN_ROWS:
                run = self._run(pa.concat_tables(waiting), first)
                yield run
                first, waiting = first + run.rows, []
        if sum(map(len, waiting)):
            yield self._run(pa.concat_tables(waiting), first)

    def _run(self, rows: pa.Table, first: int) -> Run:
        columns = {
            "cluster": Keys.of(rows["cluster"].to_numpy().astype(np.uint64)),
            "vector": Values([unit(rows[self.column])]),
            "stays": Values([rows["stays"].to_numpy()]),
            "uid": Texts.of(rows["uid"]),
        }
        return Run(first, len(rows), columns)


def _earlier(past: Past, cluster: int) -> Earlier | None:
    """What is remembered of a cluster."""
    if not past.rows:
        return None
    _, rows = past.ends("cluster", np.array([cluster], np.uint64), first=past.rows)
    return Earlier(past.values("vector", rows), past.values("stays", rows), past.texts("uid", rows))


def decide(
    vectors: np.ndarray, bound: float, chained: bool, decided: np.ndarray = NOBODY
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who stays of unit vectors, float32 (n, d), best first: those without an earlier one at a cosine above `bound`.

    Earlier ones are those kept, or with `chained` all of them. Of the first, `decided` (m,) says who stays already.

    Returns:
        kept (n,); the largest cosine to an earlier one (n,), and that one's position (n,): of the kept ones where
        one is above the bound, else, of a sample dropped for a dropped one, -1.
    """
    count = len(vectors)
    kept, cosine, of = np.zeros(count, bool), np.zeros(count, np.float32), np.full(count, -1, np.int64)
    kept[: len(decided)] = decided
    for start in range(len(decided), count, BLOCK):
        span = slice(start, min(start + BLOCK, count))
        block = vectors[span]
        inside = np.tril((block @ block.T).round(6), -1) - np.triu(np.full((len(block), len(block)), 2, np.float32))
        before = np.flatnonzero(kept[:start])
        best, whose = _nearest(block, vectors, before)
        if chained:
            near, _ = _nearest(block, vectors, np.arange(start))
            any_earlier = np.maximum(near, inside.max(axis=1))
            dropped = any_earlier > bound
        else:
            free = best <= bound
            worse, better = np.nonzero((inside > bound) & free[:, None] & free)
            dropped = ~free | (survivors(len(block), better, worse, 1 - inside[worse, better]) >= 0)
        here = np.where(dropped, -2, inside)  # cosines to those of the block that stay
        closer = here.max(axis=1) > best
        best, whose = np.maximum(best, here.max(axis=1)), np.where(closer, start + here.argmax(axis=1), whose)
        kept[span], of[span] = ~dropped, np.where(best > bound, whose, -1)
        cosine[span] = np.where(best > bound, best, any_earlier) if chained else best
    return kept, cosine, of


def _nearest(block: np.ndarray, vectors: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest cosine (n,) of a block's vectors to some `rows` of `vectors`, and the row (n,); -2 if none."""
    if len(rows) == 0:
        return np.full(len(block), -2, np.float32), np.full(len(block), -1, np.int64)
    cosine, place = nearest(block, vectors[rows])
    return cosine.round(6), rows[place]


def _clusters(t: ir.Table) -> Iterator[pa.Table]:
    """The rows of one cluster after the other."""
    waiting: list[pa.Table] = []
    for batch in t.order_by("cluster").to_pyarrow_batches(chunk_size=BATCH):
        rows = pa.Table.from_batches([batch])
        cluster = rows["cluster"].to_numpy()
        cuts = [0, *(np.flatnonzero(np.diff(cluster)) + 1).tolist(), len(rows)]
        for start, stop in pairwise(cuts):
            part = rows.slice(start, stop - start)
            if waiting and len(part) and waiting[0]["cluster"][0] != part["cluster"][0]:
                yield pa.concat_tables(waiting)
                waiting = []
            waiting += [part] if len(part) else []
    if waiting:
        yield pa.concat_tables(waiting)
