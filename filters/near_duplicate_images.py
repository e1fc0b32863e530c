"""Drop all but one of the images that look alike."""

from __future__ import annotations

from typing import Literal

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from filters._groups import priority_order, survivors
from filters.contract import VERDICTS, PoolFilter

KEEP = {"largest": "pixels", "highest_clip_score": "clip_score", "first": None}


class NearDuplicateImages(PoolFilter):
    """Of images whose 64-bit perceptual hashes differ in at most `max_distance` bits, one stays.

    `keep` says which: the `largest` in pixels, the one with the `highest_clip_score`, or the `first` by uid.
    All pairs are found exactly, by multi-index hashing (Norouzi et al. 2012): hashes within 11 bits share
    one of four 16-bit parts up to two bits. Each dropped image is within the distance of the one that stays.
    """

    max_distance: int = Field(10, ge=0, le=11)
    keep: Literal["largest", "highest_clip_score", "first"] = "largest"

    @property
    def reads(self) -> tuple[str, ...]:
        extra = {"largest": ("width", "height"), "highest_clip_score": ("clip_score",), "first": ()}
        return ("phash", *extra[self.keep])

    def drops(self, t: ir.Table) -> pa.Table:
        rows = t.filter(t.phash.notnull()).to_pyarrow()
        if self.keep == "largest":
            pixels = pc.multiply(rows["width"].cast(pa.int64()), rows["height"].cast(pa.int64()))
            rows = rows.append_column("pixels", pixels)
        rows = rows.take(priority_order(rows, KEEP[self.keep]))
        hashes = rows["phash"].combine_chunks().to_numpy().view(np.uint64)
        # Equal hashes are one item, or a pool of blank images would be a quadratic number of pairs.
        unique, best, item = np.unique(hashes, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(best))  # items numbered by their best member
        left, right, distance = near_pairs(unique, self.max_distance)
        of_item = survivors(len(unique), rank[left], rank[right], distance)
        member_of_rank = np.sort(best)
        mine = rank[item]
        survivor = member_of_rank[np.where(of_item[mine] >= 0, of_item[mine], mine)]
        dropped = np.flatnonzero(survivor != np.arange(len(rows)))
        bits = np.bitwise_count(hashes[dropped] ^ hashes[survivor[dropped]])
        reason = pc.binary_join_element_wise(
            "phash ", pa.array(bits.astype(np.int64)).cast(pa.string()),
            f" bits from a kept image's, <= {self.max_distance}", "",
        )  # fmt: skip
        return pa.table([rows["row"].take(dropped), reason, rows["uid"].take(survivor[dropped])], schema=VERDICTS)


def near_pairs(hashes: np.ndarray, max_distance: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of distinct hashes, uint64 (n,), at most `max_distance` <= 11 bits apart.

    Returns positions and distances: left < right (pairs,), and bits (pairs,).
    """
    import faiss

    if len(hashes) < 2 or max_distance == 0:
        none = np.zeros(0, np.int64)
        return none, none, none
    codes = np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 8)
    index = faiss.IndexBinaryMultiHash(64, 4, 16)
    index.nflip = max_distance // 4
    index.add(codes)
    limits, bits, right = index.range_search(codes, max_distance + 1)
    counts = limits[1:].astype(np.int64) - limits[:-1].astype(np.int64)
    left = np.repeat(np.arange(len(hashes)), counts)
    once = left < right
    return left[once], right[once], bits[once].astype(np.int64)
