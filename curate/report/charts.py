"""Geometry of the charts: what the template draws, in percent of the width and of the height."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from curate.report.histograms import EARLIER, HERE, KEPT, LATER, Bound, Histogram, quantile
from curate.report.words import count, plural

BARS = 56
_BLUR = 2e-3  # values are known to a thousandth, so an edge that bounds them stands this far off


@dataclass(frozen=True)
class Bar:
    """A bar and its parts from the bottom up: (class, top, height)."""

    left: float
    width: float
    parts: tuple[tuple[str, float, float], ...]
    title: str


@dataclass(frozen=True)
class Mark:
    """A tick or a line at a place on the axis. `side` is where its label goes: left, right or middle."""

    left: float
    label: str
    side: str = "middle"
    off: bool = False
    """It lies beyond the axis, so only its label is shown."""


@dataclass(frozen=True)
class Drawing:
    """A histogram, ready to be drawn. `text` and `limits` say the same in words."""

    label: str
    bars: tuple[Bar, ...]
    ticks: tuple[Mark, ...]
    lines: tuple[Mark, ...]
    text: str
    limits: str
    log: bool


@dataclass(frozen=True)
class Axis:
    """A stretch of numbers, linear or logarithmic."""

    low: float
    high: float
    log: bool

    def at(self, value: float) -> float:
        """Where a value lies, 0 to 100; off the axis it is held at the end."""
        low, high = self._of(self.low), self._of(self.high)
        place = (self._of(value) - low) / (high - low) if not self.log or value > 0 else 0.0
        return 100 * min(max(place, 0.0), 1.0)

    def _of(self, value: float) -> float:
        return math.log10(value) if self.log else value


def draw(histogram: Histogram) -> Drawing:
    """Turn fine counts into bars. The outermost bars hold all that lies beyond the axis."""
    values, counts = histogram.values()
    bounds = list(histogram.chart.bounds)
    if np.isfinite(histogram.lowest_passed):
        bounds.append(Bound("kept from", histogram.lowest_passed, "at least"))
    edges, log = _edges(values, counts.sum(axis=0), bounds, histogram.whole)
    axis = Axis(float(edges[0]), float(edges[-1]), log)
    inner = edges[1:-1].copy()
    for bound in bounds:
        if not histogram.whole:
            shift = _BLUR * abs(bound.value) * (-1 if bound.side == "at least" else 1)
            inner = np.where(np.isclose(inner, bound.value), inner + shift, inner)
    slot = np.searchsorted(inner, values, side="right")
    stacks = np.zeros((4, len(edges) - 1), np.int64)
    for fate in range(4):
        np.add.at(stacks[fate], slot, counts[fate])
    bars = _bars(stacks, edges, axis, histogram.whole)
    lines = tuple(_line(bound, axis, histogram.whole) for bound in bounds)
    ticks = tuple(_tick(tick, axis) for tick in _ticks(axis))
    return Drawing(
        histogram.chart.label,
        bars,
        ticks,
        lines,
        _in_words(values, counts),
        "; ".join(f"{bound.label} {short(bound.value)}" for bound in bounds),
        log,
    )


def number(value: float) -> str:
    """A number on an axis.

    >>> number(20000.0), number(0.05), number(3.0)
    ('20k', '0.05', '3')
    """
    if abs(value) >= 10_000:
        return f"{value / 1000:,.6g}k"
    return f"{value:.6g}".replace("-", "−")


def short(value: float) -> str:
    """Three significant digits, or all of a whole number's.

    >>> short(1767.4), short(0.08691), short(3.0)
    ('1,767', '0.0869', '3')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _edges(values: np.ndarray, weights: np.ndarray, bounds: list[Bound], whole: bool) -> tuple[np.ndarray, bool]:
    """Where bars begin and end: around nearly all values and the bounds near them, one edge on the first bound."""
    low, high = quantile(values, weights, 0.002), quantile(values, weights, 0.998)
    limits = [_limit(bound, whole) for bound in bounds]
    near = [b for b in limits if b > 0 and (b >= low / 30 and b <= max(high * 2, high + (high - low)))]
    low, high = min([low, *near]), max([high, *near])
    log = low > 0 and quantile(values, weights, 0.05) * 30 < quantile(values, weights, 0.95)
    if whole and not log:
        step = max(1, math.ceil((high + 1 - low) / BARS))
        start = near[0] - step * max(1, math.ceil((near[0] - low) / step)) if near else low
        return np.arange(start, high + step + 1, step, dtype=float), False
    if log:
        edges = 10 ** _aligned(math.log10(low), math.log10(high), [math.log10(b) for b in near[:1]])
        return edges, True
    return _aligned(low, high, near[:1]), False


def _aligned(low: float, high: float, on: list[float]) -> np.ndarray:
    """Even edges from below `low` to above `high`, one of them at `on`."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    step = (high - low) / (BARS - 2)
    start = on[0] - step * max(1, math.ceil((on[0] - low) / step - 1e-9)) if on else low
    return start + step * np.arange(math.ceil((high - start) / step + 1e-9) + 1)


def _limit(bound: Bound, whole: bool) -> float:
    """Where kept and dropped meet: after the bound, for whole numbers that may reach it."""
    return bound.value + 1 if whole and bound.side == "at most" else bound.value


def _bars(stacks: np.ndarray, edges: np.ndarray, axis: Axis, whole: bool) -> tuple[Bar, ...]:
    highest = stacks.sum(axis=0).max()
    bars = []
    for slot in np.flatnonzero(stacks.sum(axis=0)):
        left, right = axis.at(edges[slot]), axis.at(edges[slot + 1])
        kept, here = int(stacks[KEPT, slot]), int(stacks[HERE, slot])
        other = int(stacks[EARLIER, slot] + stacks[LATER, slot])
        parts, top = [], 100.0
        for name, n in (("kept", kept), ("here", here), ("other", other)):
            if n:
                height = max(100 * n / highest, 1.2)  # a single sample among millions still shows
                top -= height
                parts.append((name, round(top, 2), round(height, 2)))
        last = edges[slot + 1] - (1 if whole else 0)
        reach = number(edges[slot]) if whole and last <= edges[slot] else f"{edges[slot]:.4g} to {last:.4g}"
        title = f"{reach}: {count(kept)} kept, {count(here)} dropped here, {count(other)} dropped by other filters"
        bars.append(Bar(round(left, 3), round(max(right - left, 0.2), 3), tuple(parts), title))
    return tuple(bars)


def _line(bound: Bound, axis: Axis, whole: bool) -> Mark:
    limit = _limit(bound, whole)
    left = axis.at(limit)
    text = f"{bound.label} {short(bound.value)}"
    if limit > axis.high:
        return Mark(100, f"{text} →", "left", off=True)
    if limit < axis.low:
        return Mark(0, f"← {text}", "right", off=True)
    return Mark(round(left, 3), text, "right" if left < 60 else "left")


def _tick(value: float, axis: Axis) -> Mark:
    left = axis.at(value)
    return Mark(left, number(value), "right" if left < 3 else "left" if left > 97 else "middle")


def _ticks(axis: Axis) -> list[float]:
    """Four to eight round numbers on the axis."""
    if axis.log:
        decades = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            ticks = [step * 10.0**decade for decade in decades for step in steps]
            ticks = [tick for tick in ticks if axis.low <= tick <= axis.high]
            if len(ticks) <= 8:
                break
        return ticks
    rough = (axis.high - axis.low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first = math.ceil(axis.low / step)
    return [round(step * n, 10) for n in range(first, math.floor(axis.high / step + 1e-9) + 1)]


def _in_words(values: np.ndarray, counts: np.ndarray) -> str:
    every = counts.sum(axis=0)
    low, middle, high = (short(quantile(values, every, at)) for at in (0.05, 0.5, 0.95))
    return f"Median {middle}; 90 % of {plural(int(every.sum()), 'sample')} lie from {low} to {high}."
