"""Drop all but one of the images that are copies of one picture."""

from __future__ import annotations

from typing import Literal

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from filters._groups import priority_order, survivors
from filters._guesses import Hashes
from filters._hamming import near_pairs
from filters._likeness import LIKENESS, likeness
from filters._stars import stars
from filters._thumbnails import Thumbnails, lists, rows_of
from filters._views import MIRROR, PARTS, ROTATIONS, TURNED, WINDOWS
from filters.contract import VERDICTS, PoolFilter

KEEP = {"largest": "pixels", "highest_clip_score": "clip_score", "first": None}
BATCH = 4096  # images whose views or thumbnails are in memory at once
WIDTHS = {"phash": 64, "dhash": 64, "colorhash": 42}  # bits of a hash


class NearDuplicateImages(PoolFilter):
    """Of images that are copies of one picture, one stays.

    `verified`: hashes of the image, of windows and parts of it find who may be a copy: resized, recompressed,
    recoloured, cropped by up to a tenth on each side, framed, marked in a corner; with `mirror` and `rotations` also
    mirrored and turned by quarters. Who may be a copy is laid over the other's thumbnail, and is one if the edges
    agree. Not `verified`: copies are all whose `hash` differs in at most `max_distance` bits, as other tools do.

    `keep` says which stays: the `largest` in pixels, the one with the `highest_clip_score`, or the `first` by uid.
    Each dropped image is a copy of the very one that stays.
    """

    max_distance: int = Field(10, ge=0, le=11)
    verified: bool = True
    mirror: bool = False
    rotations: bool = False
    hash: Literal["phash", "dhash", "colorhash"] = "phash"
    keep: Literal["largest", "highest_clip_score", "first"] = "largest"

    @model_validator(mode="after")
    def _together(self) -> NearDuplicateImages:
        if self.verified and self.hash != "phash":
            raise ValueError(f"hash: {self.hash} is compared bit by bit: set verified: false")
        if not self.verified and (self.mirror or self.rotations):
            raise ValueError("mirror and rotations are seen only with verified: true")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        extra = {"largest": ("width", "height"), "highest_clip_score": ("clip_score",), "first": ()}
        return (*(("view_hashes", "thumbnail") if self.verified else (self.hash,)), *extra[self.keep])

    def drops(self, t: ir.Table) -> pa.Table:
        return self._drop_copies(t) if self.verified else self._drop_near_hashes(t)

    def _drop_near_hashes(self, t: ir.Table) -> pa.Table:
        rows = self._best_first(t.filter(t[self.hash].notnull()).to_pyarrow())
        hashes = rows[self.hash].combine_chunks().to_numpy().view(np.uint64)
        # Equal hashes are one item, or a pool of blank images would be a quadratic number of pairs.
        unique, best, item = np.unique(hashes, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(best))  # items numbered by their best member
        left, right, distance = near_pairs(unique, self.max_distance, WIDTHS[self.hash])
        of_item = survivors(len(unique), rank[left], rank[right], distance)
        member_of_rank = np.sort(best)
        mine = rank[item]
        survivor = member_of_rank[np.where(of_item[mine] >= 0, of_item[mine], mine)]
        dropped = np.flatnonzero(survivor != np.arange(len(rows)))
        bits = np.bitwise_count(hashes[dropped] ^ hashes[survivor[dropped]])
        reason = pc.binary_join_element_wise(
            f"{self.hash} ", pa.array(bits.astype(np.int64)).cast(pa.string()),
            f" bits from a kept image's, <= {self.max_distance}", "",
        )  # fmt: skip
        return pa.table([rows["row"].take(dropped), reason, rows["uid"].take(survivor[dropped])], schema=VERDICTS)

    def _drop_copies(self, t: ir.Table) -> pa.Table:
        measured = t.filter(t.view_hashes.notnull() & t.thumbnail.notnull())
        table, views = self._read_views(measured)
        order = priority_order(table, KEEP[self.keep])
        rows = table.take(order)
        turns = [*(MIRROR if self.mirror else ()), *(ROTATIONS if self.rotations else ())]
        hashes = Hashes(views, order, list(TURNED) if len(turns) > len(ROTATIONS) else turns, self.max_distance)
        del views
        place = rows_of(rows["row"])
        guesses = hashes.guesses(
            (place(batch["row"]), lists(batch["view_hashes"])[:, WINDOWS])
            for batch in measured.select("row", "view_hashes").to_pyarrow_batches(chunk_size=BATCH)
        )
        if not len(guesses):
            return VERDICTS.empty_table()
        with Thumbnails(np.unique(np.concatenate([guesses.left, guesses.right]))) as thumbnails:
            for batch in measured.select("row", "thumbnail").to_pyarrow_batches(chunk_size=BATCH):
                thumbnails.put(place(batch["row"]), lists(batch["thumbnail"]))
            survivor, score = stars(
                len(rows), guesses,
                lambda left, right, warp: likeness(thumbnails, thumbnails.at(left), thumbnails.at(right), warp),
            )  # fmt: skip
        dropped = np.flatnonzero(survivor >= 0)
        alike = [f"{value:.3f} alike a kept image, >= {LIKENESS}" for value in score[dropped].tolist()]
        return pa.table([rows["row"].take(dropped), alike, rows["uid"].take(survivor[dropped])], schema=VERDICTS)

    def _read_views(self, measured: ir.Table) -> tuple[pa.Table, np.ndarray]:
        """What says who is best, and the whole, turned and part hashes of each image, uint64 (n, 12)."""
        heads, views = [], [np.zeros((0, PARTS.stop), np.uint64)]
        head = [c for c in ("row", "uid", *self.reads) if c not in ("view_hashes", "thumbnail")]
        for batch in measured.select(*head, "view_hashes").to_pyarrow_batches(chunk_size=BATCH):
            # Copied: a column of a batch holds the memory of all its columns, and the views are most of it.
            own = batch.select(head).take(pa.array(np.arange(len(batch))))
            heads.append(self._sized(pa.table(own)))
            views.append(lists(batch["view_hashes"])[:, : PARTS.stop].copy())
        if not heads:
            return self._sized(measured.select(*head).limit(0).to_pyarrow()), views[0]
        return pa.concat_tables(heads), np.concatenate(views)

    def _best_first(self, rows: pa.Table) -> pa.Table:
        rows = self._sized(rows)
        return rows.take(priority_order(rows, KEEP[self.keep]))

    def _sized(self, rows: pa.Table) -> pa.Table:
        if self.keep != "largest":
            return rows
        pixels = pc.multiply(rows["width"].cast(pa.int64()), rows["height"].cast(pa.int64()))
        return rows.append_column("pixels", pixels)
