"""Conditions over feature columns as users write them: `clip_score < 0.2 and width >= 64`.

The text is parsed as SQL and turned into an Ibis expression node by node; what is not named here is refused, so a
condition can compare columns and nothing else: it reads no file, calls no function and runs no statement.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ibis
import ibis.expr.types as ir
import sqlglot
from ibis.common.exceptions import IbisError
from sqlglot import exp

MAX_LENGTH = 10_000
_BINARY: dict[type[exp.Expression], Callable[[Any, Any], Any]] = {
    exp.EQ: lambda a, b: a == b,
    exp.NEQ: lambda a, b: a != b,
    exp.LT: lambda a, b: a < b,
    exp.LTE: lambda a, b: a <= b,
    exp.GT: lambda a, b: a > b,
    exp.GTE: lambda a, b: a >= b,
    exp.Add: lambda a, b: a + b,
    exp.Sub: lambda a, b: a - b,
    exp.Mul: lambda a, b: a * b,
    exp.Div: lambda a, b: a / b,
    exp.Mod: lambda a, b: a % b,
    exp.And: lambda a, b: a & b,
    exp.Or: lambda a, b: a | b,
}
_ALLOWED = "comparisons, and, or, not, + - * / %, is null, in (...), between, like, abs(...), quantile(column, 0.3)"


@dataclass(frozen=True)
class Condition:
    """A condition and its parse tree."""

    text: str
    tree: exp.Expression

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it names, each once, in order."""
        found = [column.name for column in self.tree.find_all(exp.Column, bfs=False)]
        return tuple(dict.fromkeys(found))

    def on(self, table: ir.Table) -> ir.BooleanValue:
        """The condition as an expression over a table; where a column it needs is null, it is null.

        A `quantile(column, q)` is worked out over the table's rows when this is called.

        Raises:
            ValueError: it compares what cannot be compared, or is neither true nor false.
        """
        try:
            found = _compiled(self.tree, table)
        except (IbisError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.text!r} compares what cannot be compared: {str(error).splitlines()[0]}") from error
        if not isinstance(found, ir.BooleanValue):
            raise ValueError(f"{self.text!r} is neither true nor false; write a comparison such as clip_score < 0.2")
        return found


@functools.lru_cache(maxsize=64)
def parse_condition(text: str) -> Condition:
    """Parse a condition.

    >>> parse_condition("clip_score < 0.2 and not width < 64").columns
    ('clip_score', 'width')

    Raises:
        ValueError: it is no condition, or uses what is not allowed.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a condition of {len(text)} characters; at most {MAX_LENGTH}")
    try:
        found: list[Any] = [tree for tree in sqlglot.parse(text, read="duckdb") if tree is not None]
        for tree in found:
            _check(text, tree)
    except (sqlglot.errors.SqlglotError, RecursionError) as error:
        raise ValueError(f"{text!r} cannot be read as a condition, such as clip_score < 0.2 and width >= 64") from error
    if len(found) != 1:
        raise ValueError(f"{text!r} is {'no' if not found else 'more than one'} condition")
    return Condition(text, found[0])


def _check(text: str, tree: exp.Expression) -> None:
    for node in tree.walk():
        if isinstance(node, exp.Column) and (node.args.get("table") or isinstance(node.this, exp.Star)):
            raise ValueError(f"{text!r}: {node.sql()!r} is no column's name")
        if isinstance(node, exp.Quantile) and not (
            isinstance(node.this, exp.Column) and _is_share(node.args["quantile"])
        ):
            raise ValueError(f"{text!r}: write quantile(column, share), with a share from 0 to 1")
        if isinstance(node, exp.Like | exp.ILike) and not _is_text(node.expression):
            raise ValueError(f"{text!r}: like takes a text in quotes, with % for anything")
        if isinstance(node, exp.In) and not node.expressions:
            raise ValueError(f"{text!r}: in (...) takes a list of values")
        if type(node) not in _BINARY and not isinstance(node, _OTHERS):
            raise ValueError(f"{text!r}: {node.sql()!r} is not allowed; there are {_ALLOWED}")


_OTHERS = (exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null, exp.Not, exp.Paren, exp.Neg, exp.Is, exp.In,
           exp.Between, exp.Like, exp.ILike, exp.Abs, exp.Quantile)  # fmt: skip


def _is_share(node: exp.Expression) -> bool:
    return isinstance(node, exp.Literal) and not node.is_string and 0 <= float(node.this) <= 1


def _is_text(node: exp.Expression) -> bool:
    return isinstance(node, exp.Literal) and bool(node.is_string)


def _compiled(node: exp.Expression, table: ir.Table) -> Any:
    if (operation := _BINARY.get(type(node))) is not None:
        return operation(_compiled(node.this, table), _compiled(node.expression, table))
    one: Any = _compiled(node.this, table) if isinstance(node.this, exp.Expression) else None
    match node:
        case exp.Column():
            return table[node.name]
        case exp.Literal():
            return ibis.literal(node.this if node.is_string else _number(node.this))
        case exp.Boolean():
            return ibis.literal(bool(node.this))
        case exp.Null():
            return ibis.null()
        case exp.Not():
            return ~one
        case exp.Neg():
            return -one
        case exp.Abs():
            return one.abs()
        case exp.Is():
            return one.isnull() if isinstance(node.expression, exp.Null) else one == _compiled(node.expression, table)
        case exp.In():
            return one.isin([_compiled(value, table) for value in node.expressions])
        case exp.Between():
            return one.between(_compiled(node.args["low"], table), _compiled(node.args["high"], table))
        case exp.Like() | exp.ILike():
            pattern = node.expression.this
            return one.ilike(pattern) if isinstance(node, exp.ILike) else one.like(pattern)
        case exp.Quantile():
            return ibis.literal(one.quantile(float(node.args["quantile"].this)).execute())
        case _:
            return one  # a parenthesis, or a name


def _number(text: str) -> int | float:
    return int(text) if text.isdigit() else float(text)
