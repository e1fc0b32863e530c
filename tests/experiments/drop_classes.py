"""A filter that does harm, for the experiment in `cifar_ablation`: it drops all pictures of some kinds."""

from __future__ import annotations

import ibis.expr.types as ir

from filters.contract import Columns, RowFilter, text


class DropClasses(RowFilter):
    """Drop captions that contain one of the words."""

    words: list[str]

    @property
    def reads(self) -> tuple[str, ...]:
        return ("caption",)

    def keep(self, t: Columns) -> ir.BooleanValue:
        return ~t.caption.re_search("|".join(self.words))

    def reason(self, t: Columns) -> ir.StringValue:
        return text(f"caption names one of {', '.join(self.words)}")
