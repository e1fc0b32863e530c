"""Drop all but one of the samples that hold the same image file."""

from __future__ import annotations

from typing import Literal

import ibis
import ibis.expr.types as ir

from filters.contract import PoolFilter, text


class ExactDuplicates(PoolFilter):
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
        alike = ibis.window(group_by=some.sha256, order_by=order)
        ranked = some.mutate(place=ibis.row_number().over(alike), survivor=some.uid.first().over(alike))
        copies = ranked.filter(ranked.place > 0)
        return copies.select("row", reason=text("same image file as a kept sample"), duplicate_of=copies.survivor)
