"""Drop images that are too small to show anything, or too large to handle."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from pydantic import Field

from filters.contract import Columns, RowFilter, text


class ImageSize(RowFilter):
    """Keep images whose shorter side has at least `min_side` pixels and whose longer at most `max_side`."""

    min_side: int = Field(64, ge=1)
    max_side: int | None = Field(None, ge=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("width", "height")

    def keep(self, t: Columns) -> ir.BooleanValue:
        large_enough = ibis.least(t.width, t.height) >= self.min_side
        if self.max_side is None:
            return large_enough
        return large_enough & (ibis.greatest(t.width, t.height) <= self.max_side)

    def reason(self, t: Columns) -> ir.StringValue:
        size = t.width.cast("string") + "x" + t.height.cast("string") + " pixels: "
        return size + ibis.ifelse(
            ibis.least(t.width, t.height) < self.min_side,
            text(f"shorter side < {self.min_side}"),
            text(f"longer side > {self.max_side}"),
        )
