"""Refuse captions that a model gives to too many images: it has collapsed to a few sentences or to a template."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.features.minhash import Minhash
from curate.recaption.contract import REFUSED, Check
from curate.recaption.rowwise import PIECE, batch_of, text
from filters._shingles import normalised
from filters.near_duplicate_captions import NearDuplicateCaptions


class Collapse(Check):
    """Two bounds on what many images share, each of them the larger of `min_images` and a share of all images.

    `max_share`: captions that are nearly the same, with a Jaccard similarity of `min_jaccard` as the filter
    `near_duplicate_captions` finds it. `max_opening_share`: captions that begin with the same `opening_words`
    words. All captions of such a group are refused: they tell nothing of any of their images.
    """

    name: ClassVar = "collapse"
    min_images: int = Field(10, ge=2)
    max_share: float = Field(0.02, gt=0, le=1)
    min_jaccard: float = Field(0.8, gt=0, le=1)
    opening_words: int = Field(8, ge=1, le=50)
    max_opening_share: float = Field(0.05, gt=0, le=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("uid", "caption")

    def refuses(self, captions: pa.Table) -> pa.Table:
        images = pc.count_distinct(captions["uid"]).as_py()
        if images < self.min_images:
            return REFUSED.empty_table()
        same = self._same(captions, images)
        opening = self._openings(captions, images)
        left = opening.filter(pc.invert(pc.is_in(opening["row"], value_set=same["row"].combine_chunks())))
        return pa.concat_tables([same, left])

    def _bound(self, images: int, most: float) -> int:
        return max(self.min_images, math.ceil(images * most - 1e-9))

    def _same(self, captions: pa.Table, images: int) -> pa.Table:
        """Captions alike, by the filter: each image counts once for a caption, whatever its case or punctuation."""
        signed = pa.concat_tables(list(_signed(captions)))
        rows = np.arange(len(signed))
        once = signed.select(["uid", "caption_key"]).append_column("row", pa.array(rows))
        first = once.group_by(["uid", "caption_key"]).aggregate([("row", "min")])["row_min"].combine_chunks()
        judged = signed.take(first).append_column("row", first)
        bound = self._bound(images, self.max_share)
        rule = NearDuplicateCaptions(
            min_jaccard=self.min_jaccard, max_copies=None, boilerplate=bound, boilerplate_share=None
        )
        dropped = rule.drops(ibis.memtable(judged))
        found = dropped if isinstance(dropped, pa.Table) else dropped.to_pyarrow()
        groups = judged.select(["row", "uid", "caption_key"]).join(
            found.select(["row", "reason"]), "row", join_type="inner"
        )
        keyed = once.join(groups.select(["uid", "caption_key", "reason"]), ["uid", "caption_key"], join_type="inner")
        return keyed.select(["row", "reason"]).sort_by("row").cast(REFUSED)

    def _openings(self, captions: pa.Table, images: int) -> pa.Table:
        pattern = rf"^(?P<opening>(?:\S+ ){{{self.opening_words - 1}}}\S+)"
        parts = [
            pc.struct_field(pc.extract_regex(normalised(text(piece["caption"])), pattern), "opening")
            for piece in _pieces(captions)
        ]
        begun = pa.table({"uid": captions["uid"], "opening": pa.chunked_array(parts, pa.string())})
        begun = begun.append_column("row", pa.array(np.arange(len(begun)))).filter(begun["opening"].is_valid())
        counted = begun.group_by("opening").aggregate([("uid", "count_distinct")])
        bound = self._bound(images, self.max_opening_share)
        many = counted.filter(pc.greater_equal(counted["uid_count_distinct"], bound))
        found = begun.join(many, "opening", join_type="inner")
        count = found["uid_count_distinct"].cast(pa.string())
        reason = pc.binary_join_element_wise(
            count, f" images >= {bound} share the opening '", found["opening"], "'", ""
        )
        return pa.table({"row": found["row"], "reason": reason}, REFUSED).sort_by("row")


def _pieces(captions: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, len(captions), PIECE):
        yield captions.slice(start, PIECE)


def _signed(captions: pa.Table) -> Iterator[pa.Table]:
    """`uid`, `caption`, `minhash` and `caption_key`, a piece at a time."""
    feature = Minhash()
    for piece in _pieces(captions):
        columns = feature.measure(batch_of(piece["caption"].to_pylist()))
        yield pa.table({"uid": piece["uid"], "caption": piece["caption"]} | columns)
