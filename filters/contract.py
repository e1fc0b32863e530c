"""What a filter is: parameters, the columns it reads, and a decision over them. It never sees a pixel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from pydantic import BaseModel, BeforeValidator, ConfigDict

Paths = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""Files or folders; one of them may be written without the list."""
GENERATION = "generation"
"""A column of whole numbers that rows have where some are older: a sample never goes for one of a later generation."""
VERDICTS = pa.schema({"row": pa.int64(), "reason": pa.string(), "duplicate_of": pa.string()})
"""The table a pool filter returns: one row for each sample it drops."""


class Filter(BaseModel, ABC):
    """A filter: its fields are the recipe's parameters. One file in `filters/` holds one filter, whose class
    is the file's name in CamelCase. Subclass `RowFilter` or `PoolFilter`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    @abstractmethod
    def reads(self) -> Sequence[str]:
        """The feature columns it needs; no others are shown to it."""

    @property
    def sets(self) -> Mapping[str, Mapping[str, Any]]:
        """Parameters of features that follow from its own: feature name to parameters. A recipe may name more."""
        return {}


class Columns:
    """The columns that a filter declared, as Ibis expressions: `t.width`.

    Raises:
        AttributeError: the filter asks for a column that its `reads` does not name.
    """

    def __init__(self, table: ir.Table, reads: Sequence[str]) -> None:
        self._table, self._reads = table, tuple(reads)

    def __getattr__(self, name: str) -> Any:
        if name not in self._reads:
            raise AttributeError(f"column {name!r} is not among those the filter reads: {', '.join(self._reads)}")
        return self._table[name]


class RowFilter(Filter):
    """A filter that judges each sample by itself: the same answer however the rows are split."""

    @abstractmethod
    def keep(self, t: Columns) -> ir.BooleanValue:
        """True for the samples that stay. A sample for which it is null is dropped as not measured."""

    @abstractmethod
    def reason(self, t: Columns) -> ir.StringValue:
        """Why a sample is dropped, with its value and the bound: `width 40 < 64`."""


class PoolFilter(Filter):
    """A filter that compares samples: the same answer under any order of the rows, ties broken by uid."""

    @property
    def compares(self) -> bool:
        """Whether what it says of a sample depends on which others there are; with some parameters it may not."""
        return True

    @abstractmethod
    def drops(self, t: ir.Table) -> ir.Table | pa.Table:
        """The samples to drop, as a `VERDICTS` table.

        `t` has `row` (int64, the sample's place in the pool), `uid`, the columns of `reads`, and `generation` where
        a run says which samples were there first.
        """


def number(value: ir.NumericValue, digits: int = 3) -> ir.StringValue:
    """A number as text for a reason, rounded.

    The same text on every engine, which a plain cast of a float is not.
    """
    scale = 10**digits
    whole = (value.cast("float64").abs() * scale).round().cast("int64")
    sign = ibis.ifelse((value < 0) & (whole > 0), "-", "")
    rest = whole % scale
    # The 1 before the digits keeps their zeros, and costs an engine a third of what padding does.
    return sign + ((whole - rest) / scale).cast("int64").cast("string") + "." + (rest + scale).cast("string").substr(1)


def text(value: Any) -> ir.StringValue:
    """A constant as text for a reason."""
    return ibis.literal(str(value))
