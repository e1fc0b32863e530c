"""Preview: what a recipe would do, from cached columns alone: the funnel, and some samples of each verdict."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from curate.engines import scattered
from curate.features.caption import Caption
from curate.measure import ShardTask, read_features, sidecar
from curate.report.words import tidy
from curate.selection import STEP, Selection

EXAMPLES = 3
SHORT_UID = 12
DRAWN = 2000
"""Dropped samples of a filter that are looked at; those nearest to its threshold are shown."""
_NUMBER = r"-?\d+(?:\.\d+)?"
_BOUND = re.compile(rf"^(.*?)([<>])\s*({_NUMBER})")


@dataclass(frozen=True)
class Example:
    """A sample and its verdict. `caption` is None where none is cached; `reason` is None for a kept one."""

    uid: str
    shard: str
    key: str
    caption: str | None
    reason: str | None = None
    duplicate_of: str | None = None


@dataclass(frozen=True)
class Examples:
    """Some samples that each filter dropped, by its name, and some that stay."""

    dropped: dict[str, list[Example]]
    kept: list[Example]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def preview(selection: Selection, count: int = EXAMPLES) -> Examples:
    """Pick `count` samples of each verdict: the same ones each time, on any engine.

    Of what a filter dropped they are those whose value came nearest to the bound, among a fair draw of `DRAWN`.
    """
    picked: dict[str, pa.Table] = {}
    for table in selection.dropped:
        for step in sorted(table.select(STEP).distinct().to_pyarrow()[STEP].to_pylist()):
            mine = table.filter(table[STEP] == step)
            drawn = mine.order_by([mine.reason.isnull(), scattered(mine.row), mine.row]).limit(DRAWN)
            rows = drawn.select("row", "reason", "duplicate_of").to_pyarrow()
            gaps = np.array([gap(reason) for reason in rows["reason"].to_pylist()])
            nearest = np.lexsort((np.arange(len(gaps)), gaps))[:count]
            picked[selection.funnel[step].filter] = rows.take(pa.array(nearest))
    kept = pa.table({"row": selection.alive.some(count)})
    known = _look_up(selection.tasks, np.concatenate([t["row"].to_numpy() for t in (*picked.values(), kept)]))
    dropped = {
        name: [replace(known[r["row"]], reason=r["reason"], duplicate_of=r["duplicate_of"]) for r in table.to_pylist()]
        for name, table in picked.items()
    }
    return Examples(dropped, [known[row] for row in kept["row"].to_pylist()])


def gap(reason: str | None) -> float:
    """How far a reason's value is from its bound, as a share of the bound; infinite where it names none.

    >>> gap("clip_score 0.190 < 0.200, not in the top 0.3"), gap("48x300 pixels: shorter side < 64")
    (0.05..., 0.25)
    """
    found = _BOUND.match(reason or "")
    values = [float(value) for value in re.findall(_NUMBER, found.group(1))] if found else []
    if not found or not values:
        return float("inf")
    value, bound = (min if found.group(2) == "<" else max)(values), float(found.group(3))
    return abs(value - bound) / max(abs(bound), 1e-9)


def _look_up(tasks: Sequence[ShardTask], rows: np.ndarray) -> dict[int, Example]:
    """What some samples are called, by `row`."""
    found: dict[int, Example] = {}
    for number in np.unique(rows >> 32).tolist():
        task, mine = _with_caption(tasks[number]), np.unique(rows[rows >> 32 == number])
        columns = ["uid", "key", *(["caption"] if any(f.name == "caption" for _, f in task.features) else [])]
        table = read_features(task, columns).take(pa.array(mine & 0xFFFFFFFF))
        for row, values in zip(mine.tolist(), table.to_pylist(), strict=True):
            found[row] = Example(values["uid"], task.shard.name, values["key"], values.get("caption"))
    return found


def _with_caption(task: ShardTask) -> ShardTask:
    """The task with the feature `caption` too, if some other recipe measured it."""
    feature = Caption()
    if any(f.name == feature.name for _, f in task.features):
        return task
    if not task.cache.exists(sidecar(feature.folder, task.shard.name)):
        return task
    return replace(task, features=(*task.features, (feature.folder, feature)))


def examples_text(examples: dict[str, Any]) -> str:
    """`Examples.as_dict()` as plain lines: the start of the uid, the reason, the caption."""
    lines = []
    for name, samples in [*examples["dropped"].items(), ("kept", examples["kept"])]:
        lines.append(f"{name}, for example" if samples else f"{name}: none")
        for sample in samples:
            reason = tidy(sample["reason"], 80) if sample["reason"] else ""
            twin = f" ({sample['duplicate_of'][:SHORT_UID]})" if sample["duplicate_of"] else ""
            caption = f'"{tidy(sample["caption"], 60)}"' if sample["caption"] is not None else sample["key"]
            said = [sample["uid"][:SHORT_UID], reason + twin, caption]
            lines.append("  " + "  ".join(part for part in said if part))
    return "\n".join(lines)
