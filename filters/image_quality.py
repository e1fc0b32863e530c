"""Drop blank, blurred, too dark and too bright images."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from pydantic import Field

from filters.contract import Columns, RowFilter, number


class ImageQuality(RowFilter):
    """Keep images that show something: bounds on the feature `image_stats`, which explains the scales."""

    min_brightness: float = Field(0.04, ge=0, le=1)
    max_brightness: float = Field(0.98, ge=0, le=1)
    min_contrast: float = Field(0.02, ge=0, le=0.5)
    min_sharpness: float = Field(5.0, ge=0)
    min_entropy: float = Field(0.5, ge=0, le=8)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("brightness", "contrast", "sharpness", "entropy")

    def keep(self, t: Columns) -> ir.BooleanValue:
        return (
            (t.contrast >= self.min_contrast)
            & (t.entropy >= self.min_entropy)
            & (t.brightness >= self.min_brightness)
            & (t.brightness <= self.max_brightness)
            & (t.sharpness >= self.min_sharpness)
        )

    def reason(self, t: Columns) -> ir.StringValue:
        return ibis.cases(
            (t.contrast < self.min_contrast, _said("blank: contrast", t.contrast, "<", self.min_contrast)),
            (t.entropy < self.min_entropy, _said("blank: entropy", t.entropy, "<", self.min_entropy)),
            (
                t.brightness < self.min_brightness,
                _said("dark: brightness", t.brightness, "<", self.min_brightness),
            ),
            (
                t.brightness > self.max_brightness,
                _said("bright: brightness", t.brightness, ">", self.max_brightness),
            ),
            else_=_said("blurred: sharpness", t.sharpness, "<", self.min_sharpness),
        )


def _said(what: str, value: ir.NumericValue, sign: str, bound: float) -> ir.StringValue:
    return f"{what} " + number(value) + f" {sign} {bound:g}"
