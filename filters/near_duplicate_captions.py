"""Drop boilerplate captions, and all but a few of the samples that share nearly the same caption."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from pydantic import Field

from filters._groups import places, survivors
from filters._lsh import band_keys, banding, candidates, may_be_alike, most_bits, sides, sketches, sorted_order
from filters._shingles import jaccard, normalised
from filters.contract import PoolFilter, number

BATCH = 1 << 13  # rows streamed at once
PAIRS = 1 << 18  # candidates verified at once


class NearDuplicateCaptions(PoolFilter):
    """Group captions with a Jaccard similarity of at least `min_jaccard` and thin the groups.

    A caption shared by at least `boilerplate` samples and by at least `boilerplate_share` of the samples
    that come to this filter ("click to enlarge") tells nothing of any of their images: the whole group
    goes; with both null, none does. Of the other groups `max_copies` samples stay, null for all: those with
    the `highest_clip_score`, or the `first` by uid. Candidates by MinHash LSH (Broder 1997; Leskovec et al.,
    Mining of Massive Datasets, ch. 3), each verified exactly on the captions' five-character pieces.

    Memory: 16 bytes a sample, a few hundred a distinct caption; columns stream past.
    """

    min_jaccard: float = Field(0.8, gt=0, le=1)
    max_copies: int | None = Field(1, ge=1)
    boilerplate: int | None = Field(50, ge=2)
    boilerplate_share: float | None = Field(None, gt=0, le=1)
    keep: Literal["first", "highest_clip_score"] = "first"

    @property
    def reads(self) -> tuple[str, ...]:
        columns = ("minhash", "caption_key", "caption")
        return columns if self.keep == "first" else (*columns, "clip_score")

    def drops(self, t: ir.Table) -> ir.Table:
        known = t.filter(t.caption_key.notnull() & t.caption.notnull())
        row, item, best = _items(known, self.keep)
        signed = _signed(known, row[best], self.min_jaccard)
        if len(signed.unsigned):
            return self.drops(t.anti_join(ibis.memtable(pa.table({"row": signed.unsigned})), "row"))
        left, right, similarity = _near_pairs(known, row[best], signed, self.min_jaccard)
        of_item = survivors(len(best), left, right, 1 - similarity)
        leader = np.where(of_item >= 0, of_item, np.arange(len(best)))
        alike = _similarity_to(leader, left, right, similarity)
        group = leader[item]
        size = np.bincount(group, minlength=len(best))[group]
        bound = self.bound(len(row))
        whole = size >= bound
        extra = places(group, np.argsort(group, kind="stable")) >= (self.max_copies or np.inf)
        dropped = np.flatnonzero(whole | extra)
        found = {
            "row": row[dropped],
            "kept_row": row[best[group[dropped]]],
            "samples": np.where(whole, size, 0)[dropped],  # 0 for a mere copy
            "alike": alike[item[dropped]],
        }
        return _verdicts(known, pa.table(found), bound, self.min_jaccard)

    def bound(self, samples: int) -> float:
        """How many of some samples must share a caption for it to be boilerplate; infinite for none."""
        if self.boilerplate is None and self.boilerplate_share is None:
            return math.inf
        return max(self.boilerplate or 2, math.ceil((self.boilerplate_share or 0) * samples - 1e-9))


class Items(NamedTuple):
    """The samples in the order of preference, and their distinct captions, numbered by their best sample."""

    row: np.ndarray  # int64 (samples,): place in the pool
    item: np.ndarray  # int64 (samples,): which distinct caption it has
    best: np.ndarray  # int64 (items,): the sample that comes first with it


def _items(t: ir.Table, keep: str) -> Items:
    order = [t.uid, t.row] if keep == "first" else [ibis.desc(t.clip_score, nulls_first=False), t.uid, t.row]
    columns = ["row", "caption_key", "uid"] if keep == "first" else ["row", "caption_key", "uid", "clip_score"]
    parts = [
        (batch["row"].to_numpy(), batch["caption_key"].to_numpy())
        for batch in t.order_by(order).select(columns).to_pyarrow_batches(chunk_size=BATCH)
    ]
    none = np.zeros(0, np.int64)
    row, key = (np.concatenate([none, *side]) for side in zip(*parts, strict=True)) if parts else (none, none)
    _, best, item = np.unique(key, return_index=True, return_inverse=True)
    rank = np.empty(len(best), np.int64)
    rank[np.argsort(best)] = np.arange(len(best))
    return Items(row, rank[item], np.sort(best))


def _near_pairs(
    t: ir.Table, rows: np.ndarray, signed: Signed, min_jaccard: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of captions at least `min_jaccard` alike, given the row of each caption's best sample and its signature.

    Returns items left < right (pairs,), and their exact similarity (pairs,).
    """
    most = most_bits(signed.permutations, min_jaccard)
    pairs = candidates(signed.keys, lambda some: may_be_alike(signed.sketches, some, most))
    wanted, family = np.zeros(len(rows), bool), np.arange(len(rows), dtype=np.uint32)
    for left, right in map(sides, _blocks(pairs[::-1])):
        wanted[left] = wanted[right] = True
        family[right] = left  # at last the best of those that it is paired with
    family = family[family]
    texts = _captions(t, rows[wanted])
    place = np.cumsum(wanted) - 1
    # A family's pairs together, so that its texts are cut up once.
    pairs = pairs[sorted_order(family[pairs >> np.uint64(32)])]
    parts = []
    for left, right in map(sides, _blocks(pairs)):
        similarity = jaccard(texts, place[left], place[right])
        near = similarity >= min_jaccard
        parts.append((left[near], right[near], similarity[near]))
    none = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    left, right, similarity = (np.concatenate(side) for side in zip(none, *parts, strict=True))
    return left, right, similarity


def _blocks(pairs: np.ndarray) -> Iterator[np.ndarray]:
    """Some pairs at a time, (PAIRS,)."""
    for start in range(0, len(pairs), PAIRS):
        yield pairs[start : start + PAIRS]


class Signed(NamedTuple):
    """What is held of the captions' signatures while they stream past."""

    keys: np.ndarray  # uint32 (bands, items)
    sketches: np.ndarray  # uint64 (words, items)
    permutations: int  # values of a signature
    unsigned: np.ndarray  # int64: the rows without one


def _signed(t: ir.Table, rows: np.ndarray, min_jaccard: float) -> Signed:
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


def _captions(t: ir.Table, rows: np.ndarray) -> pa.Array:
    """The normalised captions at some rows (n,), read again: most captions are nobody's candidate."""
    wanted = ibis.memtable(pa.table({"row": rows}))
    found, parts = [], []
    for batch in t.select("row", "caption").semi_join(wanted, "row").to_pyarrow_batches(chunk_size=BATCH):
        found.append(batch["row"].to_numpy())
        parts.append(normalised(batch["caption"]))
    place = np.argsort(np.concatenate([np.zeros(0, np.int64), *found]))
    texts = pa.concat_arrays([pa.array([], pa.large_string()), *(part.cast(pa.large_string()) for part in parts)])
    return texts.take(pa.array(place[np.argsort(np.argsort(rows))]))


def _similarity_to(leader: np.ndarray, left: np.ndarray, right: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """How alike each item and its leader are, 1 for a leader itself: float64 (items,)."""
    alike = np.ones(len(leader))
    mine = leader[right] == left
    alike[right[mine]] = similarity[mine]
    return alike


def _verdicts(t: ir.Table, dropped: pa.Table, bound: float, min_jaccard: float) -> ir.Table:
    """Reasons and survivors, put together by the engine: a sample costs a few numbers here, no text."""
    found = ibis.memtable(dropped)
    kept = t.select(kept_row="row", duplicate_of="uid", caption="caption")
    it = found.left_join(kept, "kept_row")
    quoted = "'" + it.caption.substr(0, 60) + "'"
    shared = ibis.literal("boilerplate: ") + it.samples.cast("string") + f" samples >= {bound} share the caption "
    same = "caption like a kept sample's: Jaccard " + number(it.alike) + f" >= {min_jaccard:.3f}, "
    whole = it.samples > 0
    verdicts = it.select(
        "row",
        reason=ibis.ifelse(whole, shared, same) + quoted,
        duplicate_of=ibis.ifelse(whole, ibis.null("string"), it.duplicate_of),
    )
    verdicts.limit(0).to_pyarrow()  # tells the engine of the table in memory, which compiling alone does not
    return verdicts
