"""Sweeps: one parameter at several values, and how the selections they give overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from curate.engines import Engine
from curate.errors import RequestError
from curate.measure import ShardTask
from curate.recipe import Recipe
from curate.select import decide_more, every_filter, undecided
from curate.selection import Selection


@dataclass(frozen=True)
class Sweep:
    """A parameter and the values it takes, as they were written."""

    path: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class SweptValue:
    """What one value of the parameter came to; `shared` is the number of samples kept with each value too."""

    value: str
    kept: int
    samples: int
    shared: tuple[int, ...]
    overlap: tuple[float, ...]
    """Jaccard: samples kept with both values, over samples kept with either; 1 where neither keeps any."""

    def as_dict(self, values: Sequence[str]) -> dict[str, Any]:
        return {
            "value": self.value,
            "kept": self.kept,
            "share": round(self.kept / self.samples, 6),
            "shared": dict(zip(values, self.shared, strict=True)),
            "overlap": {value: round(j, 6) for value, j in zip(values, self.overlap, strict=True)},
        }


def split_sweep(changes: Sequence[str]) -> tuple[tuple[str, ...], Sweep | None]:
    """Tell the one change that gives several values from those that give one.

    Values are told apart by commas; a list, mapping or text in YAML's brackets or quotes is one value.

    >>> split_sweep(["language.keep=[en, de]", "image_size.min_side=32,64"])
    (('language.keep=[en, de]',), Sweep(path='image_size.min_side', values=('32', '64')))

    Raises:
        RequestError: more than one change is a sweep, or a value is empty or given twice.
    """
    single, sweeps = [], []
    for change in changes:
        path, _, value = change.partition("=")
        if "," not in value or value.lstrip()[:1] in ("[", "{", '"', "'"):
            single.append(change)
            continue
        values = tuple(part.strip() for part in value.split(","))
        if "" in values or len(set(values)) < len(values):
            raise RequestError(f"--set {change}: each value between commas once, and none empty")
        sweeps.append(Sweep(path, values))
    if len(sweeps) > 1:
        both = f"{sweeps[0].path} and {sweeps[1].path}"
        raise RequestError(f"--set: only one parameter can take several values in a run, not {both}")
    return tuple(single), (sweeps[0] if sweeps else None)


def sweep_pool(
    engine: Engine, sweep: Sweep, recipes: Sequence[Recipe], measure: Callable[[Recipe], Sequence[ShardTask]]
) -> list[SweptValue]:
    """Decide with each value's recipe. Features are measured once, and filters before the swept one run once."""
    selections: list[Selection] = []
    begun: dict[tuple[str, ...], Selection] = {}
    alike = 0
    while all(alike < len(r.filters) and r.filters[alike] == recipes[0].filters[alike] for r in recipes):
        alike += 1
    for recipe in recipes:
        folders = tuple(feature.folder for feature in recipe.features)
        if folders not in begun:
            first = every_filter(recipe)[: alike + 1]
            begun[folders] = decide_more(engine, undecided(engine, measure(recipe)), first, every_reason=False)
        selections.append(decide_more(engine, begun[folders], recipe.filters[alike:], False))
    return [_swept(value, chosen, selections) for value, chosen in zip(sweep.values, selections, strict=True)]


def _swept(value: str, chosen: Selection, selections: Sequence[Selection]) -> SweptValue:
    shared = tuple(chosen.alive.shared(other.alive) for other in selections)
    either = [chosen.kept + other.kept - both for other, both in zip(selections, shared, strict=True)]
    overlap = tuple(both / whole if whole else 1.0 for both, whole in zip(shared, either, strict=True))
    return SweptValue(value, chosen.kept, chosen.samples, shared, overlap)


def sweep_table(result: dict[str, Any]) -> str:
    """A sweep as a plain table: each value, what it keeps, and its overlap with each value."""
    rows, values = result["values"], [row["value"] for row in result["values"]]
    head = [result["parameter"], "kept", "share", *(f"| {value}" for value in values)]
    cells = [
        [row["value"], f"{row['kept']:,}", f"{row['share']:.1%}", *(f"{row['overlap'][v]:.3f}" for v in values)]
        for row in rows
    ]
    widths = [max(len(line[n]) for line in [head, *cells]) for n in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *cells]]
    lines.append(f"of {result['rows']:,} samples; the columns to the right: kept with both values / kept with either")
    return "\n".join(lines)
