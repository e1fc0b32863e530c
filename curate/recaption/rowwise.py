"""Checks that judge each caption by itself: a reason, or null, for each row of a piece of the table."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.features.batch import Batch
from curate.recaption.contract import REFUSED, Check
from curate.shards import Sample

PIECE = 1 << 16
"""Captions judged at once: a table of millions takes no more memory than its own."""


class RowCheck(Check):
    """A check that needs no other caption to judge one."""

    @abstractmethod
    def reasons(self, captions: pa.Table) -> pa.Array:
        """Why each caption is refused, null for those that pass: strings (n,)."""

    def refuses(self, captions: pa.Table) -> pa.Table:
        parts = [REFUSED.empty_table()]
        for start in range(0, len(captions), PIECE):
            reasons = self.reasons(captions.slice(start, PIECE).combine_chunks())
            parts.append(refused(np.flatnonzero(reasons.is_valid()), reasons.drop_null(), start))
        return pa.concat_tables(parts)


def refused(rows: np.ndarray, reasons: pa.Array, start: int = 0) -> pa.Table:
    """A `REFUSED` table of row numbers, counted from `start`, and their reasons."""
    return pa.table({"row": pa.array(rows + start, pa.int64()), "reason": reasons}, REFUSED)


def text(column: pa.ChunkedArray) -> pa.Array:
    """One array of strings, "" for null."""
    return column.combine_chunks().cast(pa.string()).fill_null("")


def plain_quotes(texts: pa.Array) -> pa.Array:
    """Apostrophes of all shapes as the typewriter's."""
    return pc.replace_substring_regex(texts, "[’‘`´]", "'")


def first_reason(count: int, cases: Iterable[tuple[pa.Array, pa.Array]]) -> pa.Array:
    """Of pairs of a condition (n,) and its reasons (n,), each row's first reason whose condition holds."""
    found = pa.nulls(count, pa.string())
    for condition, reasons in cases:
        found = pc.coalesce(found, pc.if_else(condition, reasons, pa.scalar(None, pa.string())))
    return found


def matched(texts: pa.Array, pattern: str, label: str) -> pa.Array:
    """`label: 'what matched'` where an RE2 pattern is found, else null; letter case does not count."""
    found = pc.match_substring_regex(texts, pattern, ignore_case=True)
    places = np.flatnonzero(found)
    if not len(places):
        return pa.nulls(len(texts), pa.string())
    parts = pc.struct_field(pc.extract_regex(texts.take(pa.array(places)), f"(?i)(?P<match>{pattern})"), "match")
    short = pc.utf8_slice_codeunits(pc.utf8_trim_whitespace(parts), 0, 60)
    return spread(pc.binary_join_element_wise(f"{label}: '", short, "'", ""), places, len(texts))


def spread(values: pa.Array, places: np.ndarray, count: int) -> pa.Array:
    """Values at some places (k,) of `count`, null elsewhere."""
    index = np.full(count, -1)
    index[places] = np.arange(len(places))
    return values.take(pa.array(index, mask=index < 0))


def share(values: np.ndarray, digits: int = 2) -> pa.Array:
    """Numbers as texts with so many digits; only for the few rows that are refused."""
    return pa.array([f"{value:.{digits}f}" for value in values.tolist()], pa.string())


def batch_of(texts: Sequence[str | None]) -> Batch:
    """Captions as a batch of samples without images, for the features that read texts."""
    return Batch("", [Sample("", 0, 0, text=one) for one in texts])
