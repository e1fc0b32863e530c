"""Drop banners and strips."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from pydantic import Field

from filters.contract import Columns, RowFilter, number


class AspectRatio(RowFilter):
    """Keep images whose longer side is at most `max` times the shorter (DataComp's basic filter uses 3)."""

    max: float = Field(3.0, ge=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("width", "height")

    def keep(self, t: Columns) -> ir.BooleanValue:
        return _ratio(t) <= self.max

    def reason(self, t: Columns) -> ir.StringValue:
        return "aspect ratio " + number(_ratio(t), 2) + f" > {self.max:g}"


def _ratio(t: Columns) -> ir.FloatingValue:
    return ibis.greatest(t.width, t.height).cast("float64") / ibis.least(t.width, t.height).cast("float64")
