"""Histograms of the columns that filters judge by, gathered shard by shard in constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curate.report.ledger import slices
from curate.report.measured import Measured, Step

_SMALLEST = 1e-4  # values nearer to 0 count as 0
_STEP = 1e-3  # relative width of a fine bin
_CODES = 40_000  # fine bins on each side of 0: up to about 2e13
EARLIER, HERE, LATER, KEPT = range(4)


@dataclass(frozen=True)
class Bound:
    """A parameter that is a threshold. `side` says what stays: values `at least` or `at most` the bound."""

    label: str
    value: float
    side: str


@dataclass(frozen=True)
class Chart:
    """What to draw for a filter: a value made from columns, and the bounds that the filter puts on it."""

    filter: str
    label: str
    columns: tuple[str, ...]
    bounds: tuple[Bound, ...]
    keep_fraction: bool = False
    """The filter keeps the top share, so its bound is the lowest value that passed."""


@dataclass
class Histogram:
    """Fine counts of a chart's values. Rows: dropped by an earlier filter, here, by a later one, and kept."""

    chart: Chart
    whole: bool = True
    counts: np.ndarray = field(default_factory=lambda: np.zeros((4, 2 * _CODES + 1), np.int64))
    lowest_passed: float = np.inf

    def add(self, values: np.ndarray, fate: np.ndarray) -> None:
        """Count values, NaN where unknown, and what became of each sample."""
        known = ~np.isnan(values)
        values, fate = values[known], fate[known]
        codes = np.round(np.log1p(np.abs(values) / _SMALLEST) / _STEP).clip(0, _CODES).astype(np.int64)
        codes = np.where(values < 0, -codes, codes) + _CODES
        cells, counts = np.unique(fate * self.counts.shape[1] + codes, return_counts=True)
        self.counts.ravel()[cells] += counts
        passed = values[fate >= LATER]
        if self.chart.keep_fraction and len(passed):
            self.lowest_passed = min(self.lowest_passed, float(passed.min()))

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """The distinct values met (n,), to a thousandth of themselves, and their counts (4, n)."""
        used = np.flatnonzero(self.counts.any(axis=0))
        code = used - _CODES
        values = np.sign(code) * _SMALLEST * np.expm1(np.abs(code) * _STEP)
        return (np.round(values) if self.whole else values), self.counts[:, used]


def charts_of(steps: Sequence[Step], columns: dict[str, pa.DataType]) -> list[Chart]:
    """The charts of a recipe: each column with a bound on it, and each score that is read without one, once.

    A parameter is a bound on a column if it is called `min_` or `max_` and the column's name or its last part,
    or just `min` or `max` in a filter that reads a single number.
    """
    charts: list[Chart] = []
    for step in steps:
        numbers = [c for c in step.reads if c in columns and _is_number(columns[c])]
        if set(numbers) == {"width", "height"}:
            charts += _of_shape(step)
            continue
        for column in numbers:
            bounds = _bounds(step, column, alone=len(numbers) == 1)
            top = isinstance(step.parameters.get("keep_fraction"), float) and len(numbers) == len(step.reads) == 1
            if bounds or top:
                charts.append(Chart(step.name, label(column), (column,), bounds, top))
    claimed = {column for chart in charts for column in chart.columns}
    for step in steps:
        for column in step.reads:
            if column in columns and pa.types.is_floating(columns[column]) and column not in claimed:
                claimed.add(column)
                charts.append(Chart(step.name, label(column), (column,), ()))
    return charts


def gather(path: str, charts: Sequence[Chart], measured: Measured, order: Sequence[str]) -> list[Histogram]:
    """Fill the charts from the selection at `path` and the measured columns; shards that the cache lacks are left out.

    `order` names all filters of the funnel in their order.
    """
    place = {name: number for number, name in enumerate(order)}
    here = np.array([place[chart.filter] for chart in charts])
    histograms = [Histogram(chart) for chart in charts]
    columns = list(dict.fromkeys(column for chart in charts for column in chart.columns))
    current, table = "", None
    for shard, first, batch in slices(path, ["uid", "filter"] if charts else []):
        if not charts:
            break
        if shard != current:
            current, table = shard, measured.read(shard, ["uid", *columns])
        if table is None or first + len(batch) > len(table):
            continue
        part = table.slice(first, len(batch))
        if not part["uid"].combine_chunks().equals(batch["uid"]):
            continue  # measured from another shard of that name
        encoded = batch["filter"].dictionary_encode()
        codes = [place.get(name, len(order)) for name in encoded.dictionary.to_pylist()]
        owner = np.array([*codes, len(order)])[encoded.indices.fill_null(len(codes)).to_numpy()]
        for histogram, mine in zip(histograms, here, strict=True):
            fate = np.select([owner == len(order), owner < mine, owner == mine], [KEPT, EARLIER, HERE], LATER)
            whole = all(pa.types.is_integer(part[c].type) for c in histogram.chart.columns)
            histogram.whole &= whole and histogram.chart.label != RATIO
            histogram.add(_values(histogram.chart, part), fate)
    return [histogram for histogram in histograms if histogram.counts.any()]


LABELS = {
    "caption_alpha": "share of letters in the caption",
    "caption_length": "caption length, characters",
    "caption_words": "caption length, words",
    "clip_score": "CLIP score",
}
SHORTER, LONGER, RATIO = "shorter side, pixels", "longer side, pixels", "aspect ratio, longer side to shorter"


def label(column: str) -> str:
    """What a chart of a column is called."""
    return LABELS.get(column, column.replace("_", " "))


def _of_shape(step: Step) -> list[Chart]:
    """Width and height are judged together: by the shorter side, the longer, or their ratio."""
    both, parameters = ("width", "height"), step.parameters
    charts = []
    for what, name, parameter, side in (
        (SHORTER, "image_size", "min_side", "at least"),
        (LONGER, "image_size", "max_side", "at most"),
        (RATIO, "aspect_ratio", "max", "at most"),
    ):
        if step.kind == name and parameters.get(parameter) is not None:
            charts.append(Chart(step.name, what, both, (Bound(parameter, float(parameters[parameter]), side),)))
    return charts


def _values(chart: Chart, part: pa.Table) -> np.ndarray:
    """A chart's value of each row, float64 with NaN where it is not known."""
    columns = [part[column].cast(pa.float64()).to_numpy() for column in chart.columns]
    if chart.label == SHORTER:
        return np.minimum(*columns)
    if chart.label == LONGER:
        return np.maximum(*columns)
    if chart.label == RATIO:
        return np.maximum(*columns) / np.maximum(np.minimum(*columns), 1)
    return columns[0]


def _bounds(step: Step, column: str, alone: bool) -> tuple[Bound, ...]:
    found = []
    for name, value in step.parameters.items():
        side, _, of = name.partition("_")
        if side not in ("min", "max") or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if column == of or (column.endswith(f"_{of}") and of) or (not of and alone):
            found.append(Bound(name, float(value), "at least" if side == "min" else "at most"))
    return tuple(found)


def _is_number(kind: Any) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def quantile(values: np.ndarray, counts: np.ndarray, at: float) -> float:
    """A quantile of values given with their counts (n,)."""
    order = np.argsort(values, kind="stable")
    return float(values[order][np.searchsorted(np.cumsum(counts[order]), at * counts.sum())])
