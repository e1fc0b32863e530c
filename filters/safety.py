"""Drop images that are not safe to train on or to publish."""

from __future__ import annotations

from typing import Literal, Self

import ibis
import ibis.expr.types as ir
from pydantic import Field, model_validator

from filters.contract import Columns, RowFilter, number


class Safety(RowFilter):
    """Keep images whose `nsfw` is at most `max_nsfw`; with `faces: drop` those without a face, with
    `max_face_area` those of whom faces cover no more than that share.

    With `faces: blur` images with faces stay, and are written with the faces blurred (see `curate.blur`).
    """

    max_nsfw: float | None = Field(0.8, ge=0, le=1)
    faces: Literal["keep", "drop", "blur"] = "keep"
    max_face_area: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _some_rule(self) -> Self:
        if not self.reads:
            raise ValueError("nothing would be dropped: give max_nsfw, faces: drop or blur, or max_face_area")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        nsfw = () if self.max_nsfw is None else ("nsfw",)
        count = ("face_count",) if self.faces != "keep" else ()
        area = () if self.max_face_area is None else ("face_area",)
        return (*nsfw, *count, *area)

    def keep(self, t: Columns) -> ir.BooleanValue:
        keep = ibis.and_(*[~drop for drop, _ in self._rules(t)])
        # Null where faces could not be looked for: such an image must not be written as if it had none.
        return keep & (t.face_count >= 0) if self.faces == "blur" else keep

    def reason(self, t: Columns) -> ir.StringValue:
        rules = self._rules(t)
        return ibis.cases(*rules) if rules else ibis.null("string")

    def _rules(self, t: Columns) -> list[tuple[ir.BooleanValue, ir.StringValue]]:
        """What drops a sample, and what is said of it."""
        rules = []
        if self.max_nsfw is not None:
            rules.append((t.nsfw > self.max_nsfw, "nsfw " + number(t.nsfw, 2) + f" > {self.max_nsfw:g}"))
        if self.faces == "drop":
            rules.append((t.face_count > 0, "faces: " + t.face_count.cast("string") + " > 0"))
        if self.max_face_area is not None:
            said = "faces cover " + number(t.face_area, 2) + f" of the image > {self.max_face_area:g}"
            rules.append((t.face_area > self.max_face_area, said))
        return rules
