"""The distinct captions of a table, by preference, with their signatures, while columns stream past."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from filters._caption_memory import Earlier
from filters._lsh import band_keys, banding, sketches
from filters.contract import GENERATION

BATCH = 1 << 13  # rows streamed at once


class Items(NamedTuple):
    """The samples in the order of preference, and their distinct captions, numbered by their best sample."""

    row: np.ndarray  # int64 (samples,): place in the pool
    item: np.ndarray  # int64 (samples,): which distinct caption it has
    best: np.ndarray  # int64 (items,): the sample that comes first with it
    generation: np.ndarray  # (samples,)
    key: np.ndarray  # uint64 (samples,): caption_key


def items_of(t: ir.Table, keep: str) -> Items:
    order = [t.uid, t.row] if keep == "first" else [ibis.desc(t.clip_score, nulls_first=False), t.uid, t.row]
    columns = ["row", "caption_key", "uid"] if keep == "first" else ["row", "caption_key", "uid", "clip_score"]
    if GENERATION in t.columns:
        order, columns = [t[GENERATION], *order], [*columns, GENERATION]
    row, key, generation = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int8)]
    for batch in t.order_by(order).select(columns).to_pyarrow_batches(chunk_size=BATCH):
        row.append(batch["row"].to_numpy())
        key.append(batch["caption_key"].to_numpy().view(np.int64))
        generation.append(batch[GENERATION].to_numpy() if GENERATION in t.columns else np.zeros(len(batch), np.int8))
    keys = np.concatenate(key).view(np.uint64)
    _, best, item = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(best), np.int64)
    rank[np.argsort(best)] = np.arange(len(best))
    return Items(np.concatenate(row), rank[item], np.sort(best), np.concatenate(generation), keys)


def numbered(item: np.ndarray, key: np.ndarray, old: Earlier) -> tuple[np.ndarray, np.ndarray]:
    """The samples' items (samples,) numbered behind the earlier ones, given the items' keys (items,); an item that has
    the key of an earlier one is that one. And those that are new (n,)."""
    by_key = np.argsort(old.key)
    at = np.minimum(np.searchsorted(old.key[by_key], key), len(by_key) - 1)
    same = old.key[by_key[at]] == key if len(by_key) else np.zeros(len(key), bool)
    numbers = len(by_key) + np.cumsum(~same) - 1
    if len(by_key):
        numbers[same] = by_key[at[same]]
    return numbers[item], np.flatnonzero(~same)


class Signed(NamedTuple):
    """What is held of the captions' signatures while they stream past."""

    keys: np.ndarray  # uint32 (bands, items)
    sketches: np.ndarray  # uint64 (words, items)
    permutations: int  # values of a signature
    unsigned: np.ndarray  # int64: the rows without one

    def after(self, old: Earlier, fresh: np.ndarray) -> Signed:
        """Of earlier captions and some of these."""
        keys, words = self.keys[:, fresh], self.sketches[:, fresh]
        if not len(old.number):
            return self._replace(keys=keys, sketches=words)
        return self._replace(keys=np.hstack([old.keys, keys]), sketches=np.hstack([old.sketches, words]))


def sign(t: ir.Table, rows: np.ndarray, min_jaccard: float) -> Signed:
    """Band keys and sketches of the captions at some rows (items,).

    The engine is not asked which rows have a signature: to tell, it would read all of them once more.
    """
    order = np.argsort(rows)
    ascending = rows[order]
    keys, sketch = np.zeros((1, len(rows)), np.uint32), np.zeros((0, len(rows)), np.uint64)
    permutations = 0
    unsigned = [np.zeros(0, np.int64)]
    for batch in t.select("row", "minhash").to_pyarrow_batches(chunk_size=BATCH):
        here, signed = batch["row"].to_numpy(), batch["minhash"]
        if signed.null_count:
            null = signed.is_null().to_numpy(zero_copy_only=False)
            unsigned.append(here[null])
            here, signed = here[~null], signed.drop_null()
        if not len(here):
            continue
        flat = signed.flatten().to_numpy()
        signatures = flat.view(f"u{flat.itemsize}").reshape(len(here), -1)
        if not permutations:
            permutations = signatures.shape[1]
            bands, length = banding(permutations, min_jaccard)
            keys = np.empty((bands, len(rows)), np.uint32)
            sketch = np.empty((-(-permutations // 64), len(rows)), np.uint64)
        place = np.minimum(np.searchsorted(ascending, here), len(rows) - 1)
        mine = ascending[place] == here
        item, signatures = order[place[mine]], signatures[mine]
        keys[:, item] = band_keys(signatures, bands, length).T
        sketch[:, item] = sketches(signatures).T
    return Signed(keys, sketch, permutations, np.concatenate(unsigned))


def texts_at(
    t: ir.Table, column: str, rows: np.ndarray, prepare: Callable[[pa.Array], pa.Array] = lambda texts: texts
) -> pa.Array:
    """A column's texts at some distinct rows (n,), read again: most captions are nobody's candidate."""
    wanted = ibis.memtable(pa.table({"row": rows}))
    found, parts = [np.zeros(0, np.int64)], [pa.array([], pa.large_string())]
    for batch in t.select("row", column).semi_join(wanted, "row").to_pyarrow_batches(chunk_size=BATCH):
        found.append(batch["row"].to_numpy())
        parts.append(prepare(batch[column]).cast(pa.large_string()))
    place = np.argsort(np.concatenate(found))
    return pa.concat_arrays(parts).take(pa.array(place[np.argsort(np.argsort(rows))]))
