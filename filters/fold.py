"""Keep one of several equal parts of the pool, told apart by content."""

from __future__ import annotations

from typing import Self

import ibis.expr.types as ir
from pydantic import Field, model_validator

from filters.contract import Columns, RowFilter, text


class Fold(RowFilter):
    """Keep part `fold` of `folds`, counted from 0, or all others with `leave_out`; copies of a file stay together.

    Parts are ranges of the image's SHA-256, so they are equal in size, random in content, and the same for a
    sample whatever pool it stands in. For held-out samples, and for a model that must not have seen what it
    judges. `curate.features.bootstrap` sorts samples in the same way.
    """

    fold: int = Field(0, ge=0)
    folds: int = Field(2, ge=2, le=256)
    leave_out: bool = False

    @model_validator(mode="after")
    def _exists(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(f"fold must be less than folds; they count from 0 to {self.folds - 1}")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return ("sha256",)

    def keep(self, t: Columns) -> ir.BooleanValue:
        first, last = bound(self.fold, self.folds), bound(self.fold + 1, self.folds)
        inside = t.sha256 >= first
        if self.fold + 1 < self.folds:
            inside = inside & (t.sha256 < last)
        return ~inside if self.leave_out else inside

    def reason(self, t: Columns) -> ir.StringValue:
        return text(f"sha256 {'in' if self.leave_out else 'outside'} fold {self.fold} of {self.folds}")


def bound(fold: int, folds: int) -> str:
    """Where a fold begins: the first 8 hex digits of its smallest SHA-256.

    >>> bound(1, 2)
    '80000000'
    """
    return f"{-(-(fold << 32) // folds):08x}"
