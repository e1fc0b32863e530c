"""The report of an ablation: verdicts, what each comparison came to, the arms, and accuracy against samples seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curate.report.page import REPORT, template
from curate.storage import Folder


@dataclass(frozen=True)
class Span:
    """A value with its interval on an axis, in percent of the axis' width."""

    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """An arm's accuracy against samples seen: points and their intervals, in percent of the plot."""

    name: str
    line: str
    points: tuple[tuple[float, float, float, float], ...]
    """x, y, and the interval's top and bottom."""


def write_ablation_report(out: Folder, result: dict[str, Any]) -> None:
    """Write OUT/report.html, one self-contained file, from what `ablation.json` holds."""
    out.write_bytes(REPORT, render(result).encode("utf-8", "replace"))


def render(result: dict[str, Any]) -> str:
    """The report as HTML."""
    reach = _reach(result["comparisons"])
    most = max(arm["samples_seen"] for arm in result["arms"])
    arms = [arm for arm in result["arms"] if arm["samples_seen"] == most]
    top = min(1.0, 1.1 * max([v for arm in arms for v in (arm["value"], *(arm["interval"] or ()), *arm["per_seed"])]))
    top = top if top > 0 else 1.0
    curves = _curves(result["arms"]) if result["scaling"] else []
    return template("ablation.html.j2").render(
        result=result,
        arms=arms,
        comparisons=[(one, _on_axis(one, reach)) for one in result["comparisons"]],
        reach=reach,
        top=top,
        curves=curves,
        budgets=sorted({arm["samples_seen"] for arm in result["arms"]}),
    )


def _reach(comparisons: Sequence[dict[str, Any]]) -> float:
    """How far the axis of differences goes to either side, as a share: a round number of points."""
    ends = [abs(v) for one in comparisons for v in (one["difference"], *one["interval"]) if math.isfinite(v)]
    most = max([0.01, *ends])
    return next((step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if most <= step), 1.0)


def _on_axis(one: dict[str, Any], reach: float) -> Span:
    at, low, high = (
        50 + 50 * max(-1.0, min(1.0, value / reach)) for value in (one["difference"], *one["interval"])
    )  # fmt: skip
    return Span(round(at, 2), round(low, 2), round(high, 2))


def _curves(arms: Sequence[dict[str, Any]]) -> list[Curve]:
    """Every arm's curve; x is the logarithm of samples seen, y the accuracy from the lowest to the highest bound."""
    seen = sorted({arm["samples_seen"] for arm in arms})
    bounds = [bound for arm in arms for bound in (arm["value"], *(arm["interval"] or ()))]
    low, high = min(bounds), max(bounds)
    width, height = math.log(seen[-1] / seen[0]) or 1.0, (high - low) or 1.0

    def place(arm: dict[str, Any]) -> tuple[float, float, float, float]:
        x = 5 + 90 * math.log(arm["samples_seen"] / seen[0]) / width
        value, (bottom, top) = arm["value"], arm["interval"] or (arm["value"], arm["value"])
        y, y_top, y_bottom = (round(95 - 90 * (v - low) / height, 2) for v in (value, top, bottom))
        return round(x, 2), y, y_top, y_bottom

    found = []
    for name in dict.fromkeys(arm["name"] for arm in arms):
        mine = sorted((arm for arm in arms if arm["name"] == name), key=lambda arm: arm["samples_seen"])
        points = tuple(place(arm) for arm in mine)
        found.append(Curve(name, " ".join(f"{x},{y}" for x, y, *_ in points), points))
    return found
