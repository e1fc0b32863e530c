"""Drop boilerplate captions, and all but a few of the samples that share nearly the same caption."""

from __future__ import annotations

from typing import Literal

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from filters._groups import places, priority_order, survivors
from filters._shingles import jaccard, mix, normalised
from filters.contract import VERDICTS, PoolFilter

ROWS_PER_BAND = 6  # 21 bands of 6 of 128 values: a pair with Jaccard 0.8 is missed once in 600
BUCKET = 64  # members of a bucket that are compared with each other; the rest, with the best of them


class NearDuplicateCaptions(PoolFilter):
    """Group captions with a Jaccard similarity of at least `min_jaccard` and thin the groups.

    A caption that `boilerplate` or more samples share ("click to enlarge") tells nothing of any of their
    images: the whole group goes. Of smaller groups `max_copies` samples stay, null for all: those with the
    `highest_clip_score`, or the `first` by uid. Candidates by MinHash LSH (Broder 1997; Leskovec et al.,
    Mining of Massive Datasets, ch. 3), each verified exactly on the captions' five-character pieces.
    """

    min_jaccard: float = Field(0.8, gt=0, le=1)
    max_copies: int | None = Field(1, ge=1)
    boilerplate: int | None = Field(50, ge=2)
    keep: Literal["first", "highest_clip_score"] = "first"

    @property
    def reads(self) -> tuple[str, ...]:
        return ("minhash", "caption") if self.keep == "first" else ("minhash", "caption", "clip_score")

    def drops(self, t: ir.Table) -> pa.Table:
        rows = t.filter(t.minhash.notnull()).to_pyarrow()
        rows = rows.take(priority_order(rows, None if self.keep == "first" else "clip_score"))
        texts = normalised(rows["caption"].combine_chunks())
        # Equal captions are one item, numbered by its first and so best sample.
        distinct = texts.dictionary_encode()
        item = distinct.indices.to_numpy().astype(np.int64)
        _, best = np.unique(item, return_index=True)
        words = distinct.dictionary.to_pylist()
        left, right, similarity = near_captions(_signatures(rows["minhash"], best), words, self.min_jaccard)
        of_item = survivors(len(words), left, right, 1 - similarity)
        leader = np.where(of_item >= 0, of_item, np.arange(len(words)))[item]
        size = np.bincount(leader, minlength=len(words))
        place = places(leader, np.argsort(leader, kind="stable"))
        everyone = size[leader] >= (self.boilerplate or np.inf)
        extra = ~everyone & (place >= (self.max_copies or np.inf))
        return _verdicts(rows, everyone, extra, size[leader], best[leader])


def near_captions(
    signatures: np.ndarray, texts: list[str], min_jaccard: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of distinct captions at least `min_jaccard` alike.

    Args:
        signatures: MinHash values, uint32 (n, permutations).
        texts: the normalised captions, n of them.

    Returns:
        Positions left < right (pairs,), and their exact Jaccard similarity (pairs,).
    """
    found = [_bucket_pairs(keys) for keys in _bands(signatures)]
    pairs = np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)
    left, right = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    similarity = jaccard(texts, left, right)
    near = similarity >= min_jaccard
    return left[near], right[near], similarity[near]


def _bands(signatures: np.ndarray) -> list[np.ndarray]:
    """Hash each band of a signature to one uint64 (n,)."""
    keys = []
    for start in range(0, signatures.shape[1] - ROWS_PER_BAND + 1, ROWS_PER_BAND):
        key = np.zeros(len(signatures), np.uint64)
        for column in range(start, start + ROWS_PER_BAND):
            key = mix(key + signatures[:, column] + np.uint64(0x9E3779B97F4A7C15))
        keys.append(key)
    return keys


def _bucket_pairs(keys: np.ndarray) -> np.ndarray:
    """Pairs of positions with equal keys, as left << 32 | right: uint64 (pairs,)."""
    order = np.argsort(keys, kind="stable").astype(np.uint64)
    ordered = keys[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(keys) else np.zeros(0, np.int64)
    size = np.diff(np.append(starts, len(keys)))
    place = np.arange(len(keys)) - np.repeat(starts, size)
    pairs = []
    for back in range(1, min(int(size.max(initial=0)), BUCKET)):
        later = np.flatnonzero(place >= back)
        pairs.append(order[later - back] << np.uint64(32) | order[later])
    late = np.flatnonzero(place >= BUCKET)
    pairs.append(order[late - place[late]] << np.uint64(32) | order[late])
    return np.concatenate(pairs)


def _signatures(column: pa.ChunkedArray, rows: np.ndarray) -> np.ndarray:
    """The MinHash values of some rows: uint32 (rows, permutations)."""
    chosen = column.take(rows)
    flat = chosen.combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.uint32, copy=False)
    return flat.reshape(len(rows), -1) if len(rows) else np.zeros((0, ROWS_PER_BAND), np.uint32)


def _verdicts(
    rows: pa.Table, everyone: np.ndarray, extra: np.ndarray, size: np.ndarray, leader: np.ndarray
) -> pa.Table:
    dropped = np.flatnonzero(everyone | extra)
    samples = pa.array(size[dropped]).cast(pa.string())
    caption = pc.utf8_slice_codeunits(rows["caption"].take(leader[dropped]).combine_chunks(), 0, 60)
    shared = pc.binary_join_element_wise("boilerplate: ", samples, " samples share the caption '", caption, "'", "")
    same = pc.binary_join_element_wise("caption nearly equals that of a kept sample: '", caption, "'", "")
    whole = pa.array(everyone[dropped])
    survivor = pc.if_else(whole, None, rows["uid"].take(leader[dropped]).combine_chunks())
    return pa.table([rows["row"].take(dropped), pc.if_else(whole, shared, same), survivor], schema=VERDICTS)
