"""Verdicts by a score: a threshold, or the top fraction."""

from __future__ import annotations

from typing import Literal

import ibis
import ibis.expr.types as ir
import numpy as np

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
    score = t[column].cast("float64")
    values = _values(t, column)
    kept = rounded(int(t.count().to_pyarrow().as_py()) * fraction)
    bound = _at(values, max(kept, 1) - 1, high)
    if bound is None:  # all that have a score stay
        none = t.filter(score.isnull())
        return _verdicts(none, column, ibis.null("string"))
    last = text(repr(bound)).cast("float64")  # a plain literal would be a decimal number, cut to its digits
    out = t.filter(score.isnull() | (score < last if high else score > last))
    better, tied = (values > bound).sum() if high else (values < bound).sum(), (values == bound).sum()
    if better + tied > kept:
        equal = t.filter(score == last)
        place = ibis.row_number().over(order_by=[equal.uid, equal.row])
        out = out.union(equal.mutate(_place=place).filter(ibis._["_place"] >= int(kept - better)).select(*t.columns))
    said = text(f"{column} ") + number(out[column]) + (" < " if high else " > ") + number(last)
    return _verdicts(out, column, said + f", not in the {'top' if high else 'bottom'} {fraction:g}")


def rounded(value: float) -> int:
    """To the nearest whole number, halves up, as SQL has it."""
    return int(value) + (value - int(value) >= 0.5)


def _values(t: ir.Table, column: str) -> np.ndarray:
    """The scores there are, in any order: 4 or 8 bytes each is all that is held of a row."""
    batches = t.filter(t[column].notnull()).select(column).to_pyarrow_batches()
    return np.concatenate([np.zeros(0, np.float32), *(batch.column(0).to_numpy() for batch in batches)])


def _at(values: np.ndarray, place: int, high: bool) -> float | None:
    """The score at a place, from 0 with the best first; None if there are fewer. NaN is above all others."""
    if place >= len(values):
        return None
    place = len(values) - 1 - place if high else place
    return float(np.partition(values, place)[place])


def below_rank(t: ir.Table, column: str, fraction: float) -> ir.Table:
    """Keep all scores that reach the one at place floor(fraction x samples), counted from 0 with the best first.

    That is one more than the fraction, and every tie with it. A sample without a score is dropped, and counts
    among the samples.
    """
    scored = t[column].isnull()
    ranked = t.mutate(
        place=ibis.row_number().over(order_by=[scored, t[column].desc(), t.uid, t.row]),
        samples=t.count().over(ibis.window()),
    )
    # In doubles, as the scripts that it follows multiply: 100 x 0.29 is less than 29.
    rank = (ranked.samples.cast("float64") * ibis.literal(fraction, "float64")).floor().cast("int64")
    ranked = ranked.mutate(bound=ranked[column].max(where=ranked.place >= rank).over(ibis.window()))
    out = ranked.filter(ranked[column].isnull() | (ranked[column] < ranked.bound))
    said = text(f"{column} ") + number(out[column], 6) + " < " + number(out.bound, 6)
    return _verdicts(out, column, said + f", the score at the top {fraction:g}")


def _verdicts(dropped: ir.Table, column: str, reason: ir.StringValue) -> ir.Table:
    return dropped.select("row", reason=reason.fill_null(f"no {column}"), duplicate_of=ibis.null("string"))
