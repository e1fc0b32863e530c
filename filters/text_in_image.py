"""Drop pairs whose caption is merely the text in the image."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from pydantic import Field

from filters.contract import Columns, RowFilter, number, text


class TextInImage(RowFilter):
    """Keep pairs whose caption says more than what can be read in the image (after T-MARS, Maini et al. 2023,
    arXiv:2307.03132): at most `max_caption_overlap` of its letters are found there.

    A model learns to read from such pairs, not to see. `min_text_area` spares images in which text covers less
    than this share; `max_text_area` drops images with more, whatever the caption says. A pair without a caption
    is judged by its text area alone.
    """

    max_caption_overlap: float = Field(0.8, ge=0, le=1)
    min_text_area: float = Field(0, ge=0, le=1)
    max_text_area: float | None = Field(None, ge=0, le=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("text_area", "caption_in_image")

    def keep(self, t: Columns) -> ir.BooleanValue:
        keep = (t.text_area >= 0) & ~self._merely_text(t)  # null where the image was not read
        return keep if self.max_text_area is None else keep & (t.text_area <= self.max_text_area)

    def reason(self, t: Columns) -> ir.StringValue:
        merely = number(t.caption_in_image, 2) + f" of the caption is text in the image > {self.max_caption_overlap:g}"
        if self.max_text_area is None:
            return merely
        covered = text("text covers ") + number(t.text_area, 2) + f" of the image > {self.max_text_area:g}"
        return ibis.cases((self._merely_text(t), merely), else_=covered)

    def _merely_text(self, t: Columns) -> ir.BooleanValue:
        overlap = t.caption_in_image.fill_null(0.0)
        return (overlap > self.max_caption_overlap) & (t.text_area >= self.min_text_area)
