"""Drop images that say the same: embeddings within a small angle of each other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from filters._groups import survivors
from filters._vectors import nearest, unit
from filters.contract import GENERATION, VERDICTS, PoolFilter

BLOCK = 4096  # samples compared at once: a matrix of 64 MiB
BATCH = 1 << 14


class SemanticDuplicates(PoolFilter):
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
        found = [self._of_cluster(rows) for rows in _clusters(t.filter(t.cluster.notnull() & t[self.column].notnull()))]
        return pa.concat_tables(found) if found else VERDICTS.empty_table()

    def _of_cluster(self, rows: pa.Table) -> pa.Table:
        keys = {
            "farthest": ("cluster_similarity", "ascending"),
            "nearest": ("cluster_similarity", "descending"),
            "highest_clip_score": ("clip_score", "descending"),
        }
        order = [keys[self.keep], ("uid", "ascending"), ("row", "ascending")]
        if GENERATION in rows.column_names:
            order.insert(0, (GENERATION, "ascending"))
        rows = rows.take(pc.sort_indices(rows, sort_keys=order))
        kept, cosine, of = decide(unit(rows[self.column]), 1 - self.epsilon, chained=self.rule == "published")
        dropped = np.flatnonzero(~kept)
        known = of[dropped] >= 0
        said = zip(cosine[dropped].tolist(), np.where(known, "kept", "dropped").tolist(), strict=True)
        reason = [f"cosine {value:.3f} to a {other} image, > {1 - self.epsilon:.3f}" for value, other in said]
        names = rows["uid"].take(pa.array(np.where(known, of[dropped], 0)))
        survivor = pc.if_else(pa.array(known), names, pa.scalar(None, pa.string()))
        return pa.table([rows["row"].take(pa.array(dropped)), pa.array(reason, pa.string()), survivor], schema=VERDICTS)


def decide(vectors: np.ndarray, bound: float, chained: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who stays of unit vectors, float32 (n, d), best first: those without an earlier one at a cosine above `bound`.

    Earlier ones are those kept, or with `chained` all of them.

    Returns:
        kept (n,); the largest cosine to an earlier one (n,), and that one's position (n,): of the kept ones where
        one is above the bound, else, of a sample dropped for a dropped one, -1.
    """
    count = len(vectors)
    kept, cosine, of = np.zeros(count, bool), np.zeros(count, np.float32), np.full(count, -1, np.int64)
    for start in range(0, count, BLOCK):
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
