"""Verdicts by a score: a threshold, or the top fraction."""

from __future__ import annotations

from typing import Literal

import ibis
import ibis.expr.types as ir

from filters.contract import number, text


def below_minimum(t: ir.Table, column: str, minimum: float) -> ir.Table:
    """Drop scores under a minimum, and samples without a score."""
    below = t.filter(t[column].isnull() | (t[column] < minimum))
    return _verdicts(below, column, text(f"{column} ") + number(below[column]) + f" < {minimum:.3f}")


def above_maximum(t: ir.Table, column: str, maximum: float) -> ir.Table:
    """Drop scores over a maximum, and samples without a score."""
    above = t.filter(t[column].isnull() | (t[column] > maximum))
    return _verdicts(above, column, text(f"{column} ") + number(above[column]) + f" > {maximum:.3f}")


def outside_fraction(t: ir.Table, column: str, fraction: float, prefer: Literal["high", "low"] = "high") -> ir.Table:
    """Keep exactly round(fraction x samples) of the best scores, ties broken by uid.

    A sample without a score is dropped, and counts among the samples.
    """
    high = prefer == "high"
    best_first = t[column].desc() if high else t[column].asc()
    ranked = t.mutate(
        place=ibis.row_number().over(order_by=[t[column].isnull(), best_first, t.uid, t.row]),
        samples=t.count().over(ibis.window()),
    )
    ranked = ranked.mutate(kept=(ranked.samples * fraction).round().cast("int64"))
    rest = ranked.place >= ranked.kept - 1
    bound = ranked[column].max(where=rest) if high else ranked[column].min(where=rest)
    ranked = ranked.mutate(bound=bound.over(ibis.window()))
    out = ranked.filter((ranked.place >= ranked.kept) | ranked[column].isnull())
    said = text(f"{column} ") + number(out[column]) + (" < " if high else " > ") + number(out.bound)
    return _verdicts(out, column, said + f", not in the {'top' if high else 'bottom'} {fraction:g}")


def _verdicts(dropped: ir.Table, column: str, reason: ir.StringValue) -> ir.Table:
    return dropped.select("row", reason=reason.fill_null(f"no {column}"), duplicate_of=ibis.null("string"))
