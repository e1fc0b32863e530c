"""Drop all but one of the images that are copies of one picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from filters._groups import priority_order
from filters._guesses import Hashes
from filters._image_memory import earlier_links, guesses_after, image_runs
from filters._likeness import LIKENESS, likeness
from filters._memory import Decision, Past, RememberingFilter
from filters._near_hashes import decide_hashes, hash_runs
from filters._stars import Compared, settle, stars
from filters._thumbnails import Thumbnails, lists, rows_of
from filters._views import MIRROR, PARTS, ROTATIONS, TURNED, WINDOWS
from filters.contract import GENERATION, VERDICTS

KEEP = {"largest": "pixels", "highest_clip_score": "clip_score", "first": None}
BATCH = 4096  # images whose views or thumbnails are in memory at once
WIDTHS = {"phash": 64, "dhash": 64, "colorhash": 42}  # bits of a hash


class NearDuplicateImages(RememberingFilter):
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
        verdicts = self.drops_after(t, Past()).verdicts
        assert isinstance(verdicts, pa.Table)
        return verdicts

    def drops_after(self, t: ir.Table, past: Past) -> Decision:
        return self._drop_copies(t, past) if self.verified else self._drop_near_hashes(t, past)

    def _drop_near_hashes(self, t: ir.Table, past: Past) -> Decision:
        rows = self._best_first(t.filter(t[self.hash].notnull()).to_pyarrow())
        hashes = rows[self.hash].combine_chunks().to_numpy().view(np.uint64)
        found = decide_hashes(hashes, self.max_distance, WIDTHS[self.hash], past)
        m = len(found.earlier)
        leader = found.leader[found.item]
        best = np.concatenate([np.full(m, -1), found.best])
        dropped = np.flatnonzero(best[leader] != np.arange(len(rows)))
        bits = np.bitwise_count(hashes[dropped] ^ found.hashes[leader[dropped]])
        reason = pc.binary_join_element_wise(
            f"{self.hash} ", pa.array(bits.astype(np.int64)).cast(pa.string()),
            f" bits from a kept image's, <= {self.max_distance}", "",
        )  # fmt: skip
        uids = _uids(past, found.earlier, rows["uid"].take(found.best))
        verdicts = pa.table([rows["row"].take(dropped), reason, uids.take(leader[dropped])], schema=VERDICTS)
        return Decision(verdicts, m, lambda: hash_runs(found, rows["uid"].take(found.best), past))

    def _drop_copies(self, t: ir.Table, past: Past) -> Decision:
        measured = t.filter(t.view_hashes.notnull() & t.thumbnail.notnull())
        table, views = self._read_views(measured)
        order = priority_order(table, KEEP[self.keep])
        rows = table.take(order)
        turns = [*(MIRROR if self.mirror else ()), *(ROTATIONS if self.rotations else ())]
        hashes = Hashes(views, order, list(TURNED) if len(turns) > len(ROTATIONS) else turns, self.max_distance)
        del views
        place = rows_of(rows["row"])

        def stream(column: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for batch in measured.select("row", column).to_pyarrow_batches(chunk_size=BATCH):
                yield place(batch["row"]), lists(batch[column])

        def windows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            return ((images, views[:, WINDOWS]) for images, views in stream("view_hashes"))

        guesses = guesses_after(hashes, windows, past) if past.rows else hashes.guesses(windows())
        both = np.unique(np.concatenate([guesses.left, guesses.right]))
        earlier, links = earlier_links(past, both[both < past.rows])
        m, links = len(earlier), links.followed_by(len(rows))
        guesses = guesses.numbered(earlier, past.rows)
        with Thumbnails(np.union1d(np.arange(m), m + both[both >= past.rows] - past.rows)) as thumbnails:
            if m:
                thumbnails.put(np.arange(m), past.values("thumbnail", earlier).view("<u8"))
            for images, pixels in stream("thumbnail") if len(guesses) else ():
                thumbnails.put(m + images, pixels)

            def alike(left: np.ndarray, right: np.ndarray, warp: np.ndarray) -> Compared:
                return likeness(thumbnails, thumbnails.at(left), thumbnails.at(right), warp)

            if GENERATION in rows.column_names:
                links = stars(len(rows), guesses, alike, rows[GENERATION].to_numpy())
            else:
                links = settle(m, guesses, links, alike)
        uids = _uids(past, earlier, rows["uid"])
        new = links.after(m, earlier, past.rows)
        dropped = m + np.flatnonzero(new.survivor >= 0)
        said = [f"{value:.3f} alike a kept image, >= {LIKENESS}" for value in links.score[dropped].tolist()]
        verdicts = pa.table(
            [rows["row"].take(dropped - m), said, uids.take(links.survivor[dropped])], schema=VERDICTS
        )  # fmt: skip
        return Decision(
            verdicts, m, lambda: image_runs(hashes, windows, lambda: stream("thumbnail"), rows["uid"], new, past.rows)
        )

    def _read_views(self, measured: ir.Table) -> tuple[pa.Table, np.ndarray]:
        """What says who is best, and the whole, turned and part hashes of each image, uint64 (n, 12)."""
        heads, views = [], [np.zeros((0, PARTS.stop), np.uint64)]
        head = [c for c in ("row", "uid", *self.reads) if c not in ("view_hashes", "thumbnail")]
        head += [GENERATION] if GENERATION in measured.columns else []
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


def _uids(past: Past, earlier: np.ndarray, new: pa.ChunkedArray) -> pa.ChunkedArray:
    """The uids of some earlier rows (m,), and behind them those of new ones."""
    old = past.texts("uid", earlier).cast(pa.string()) if len(earlier) else pa.array([], pa.string())
    return pa.chunked_array([old, *new.chunks], pa.string())
