"""The report of a recaptioning: what became of the candidates, their scores before and after, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curate.hashing import uid_hashes
from curate.measure import ShardTask
from curate.pool import Pool
from curate.report import words
from curate.report.ledger import Verdict
from curate.report.measured import Measured
from curate.report.page import REPORT, template
from curate.report.pictures import Picture, Pictures
from curate.storage import Folder

EXAMPLES = 12
"""Of each kind: samples with a new caption, and samples that kept their own."""
BINS = 36
LONG = 400
"""Characters of a caption that the page shows."""


@dataclass(frozen=True)
class Line:
    """A caption of an example. `fate`: chosen, refused, failed, or left."""

    caption: str
    fate: str
    label: str
    score: float | None
    weight: float | None


@dataclass(frozen=True)
class Example:
    """A candidate with its own caption and those written for it."""

    picture: Picture
    key: str
    uid: str
    own: Line
    written: tuple[Line, ...]
    reason: str | None


@dataclass(frozen=True)
class Bar:
    """A bin of the scores: where it lies, and how high each side is, in percent of the plot."""

    left: float
    width: float
    before: float
    after: float
    title: str


@dataclass(frozen=True)
class Scores:
    """The scores of the candidates' texts before and after; the ticks are scores with their place in percent."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    before: float
    after: float
    """Medians."""


def write_recaption_report(
    out: Folder, manifest: dict[str, Any], pool: Pool, tasks: Sequence[ShardTask], places: pa.Table, table: pa.Table
) -> None:
    """Write OUT/report.html.

    Args:
        places: `shard` and `row` of each candidate.
        table: the captions of the candidates, in the same order.
    """
    counts = manifest["counts"]
    groups = examples(pool, tasks, places, table)
    page = template("recaption.html.j2").render(
        manifest=manifest,
        counts=counts,
        verdict=verdict_line(counts),
        refused=_bars(counts["refused"], counts["written"]),
        failed=_bars(counts["failed"], counts["requests"]),
        kept=_bars(counts["kept"], counts["candidates"]),
        scores=scores(table),
        groups=[(name, text, found) for name, text, found in groups if found],
        settings=settings_lines(manifest["settings"]),
        run=run_facts(manifest),
    )
    out.write_bytes(REPORT, page.encode("utf-8", "replace"))


def verdict_line(counts: dict[str, Any]) -> str:
    """What came of it, in two sentences."""
    candidates = words.plural(counts["candidates"], "candidate")
    said = f"{words.count(counts['replaced'])} of {candidates} have a new caption as their text."
    others = counts["samples"] - counts["candidates"]
    return f"{said} The other {words.plural(others, 'sample')} of the pool are as they were." if others else said


def examples(
    pool: Pool, tasks: Sequence[ShardTask], places: pa.Table, table: pa.Table
) -> list[tuple[str, str, list[Example]]]:
    """Samples of each fate, drawn by a hash of the uid, so that the same captions show the same ones."""
    if not len(places):
        return []
    width = len(table) // len(places)
    text = np.array(table["text"].to_numpy(zero_copy_only=False), bool).reshape(-1, width)
    spread = uid_hashes(table["uid"].take(pa.array(np.arange(0, len(table), width))))
    pictures = Pictures(Measured(pool, tasks[0].features, ()))
    found = []
    for name, lead, of in (
        ("New captions", "Samples whose text is a written caption now.", text[:, 1:].any(axis=1)),
        ("Kept captions", "Candidates whose text is what it was, and why.", ~text[:, 1:].any(axis=1)),
    ):
        mine = np.flatnonzero(of)
        chosen = mine[np.argsort(spread[mine], kind="stable")][:EXAMPLES].tolist()
        found.append((name, lead, [_example(pictures, places, table, at, width) for at in chosen]))
    return found


def _example(pictures: Pictures, places: pa.Table, table: pa.Table, at: int, width: int) -> Example:
    own, *written = table.slice(at * width, width).to_pylist()
    row = places["row"][at].as_py()
    picture = pictures.of(Verdict(own["uid"], own["shard"], row, own["key"], None, None, None))
    lines = tuple(_line(caption) for caption in written)
    return Example(picture, own["key"], own["uid"], _line(own), lines, own["reason"])


def _line(row: dict[str, Any]) -> Line:
    said = words.tidy(row["caption"], LONG) if row["caption"] is not None else "none"
    if row["chosen"]:
        fate, label = "chosen", "chosen" if row["text"] else "chosen too"
    elif row["check"] is not None:
        fate, label = "refused", f"refused by {row['check']}: {words.tidy(row['reason'])}"
    elif row["caption"] is None:
        fate, label = "failed", words.tidy(row["error"])
    else:
        fate, label = "left", "not chosen"
    return Line(said, fate, label, row["score"], row["weight"] if row["weight"] not in (None, 1.0) else None)


def scores(table: pa.Table) -> Scores | None:
    """The scores of the candidates' texts, their own and those in their place; None where nothing is scored."""
    score = table["score"].to_numpy(zero_copy_only=False).astype(float)
    own = np.array(table["number"]) < 0
    text = np.array(table["text"].to_numpy(zero_copy_only=False), bool)
    before, after = (values[~np.isnan(values)] for values in (score[own], score[text]))
    if not len(before) or not len(after):
        return None
    low, high = (float(f([f(before), f(after)])) for f in (np.min, np.max))
    low, high = (low, high) if high > low else (low - 0.01, high + 0.01)
    edges = np.linspace(low, high, BINS + 1)
    first, second = (np.histogram(values, edges)[0] for values in (before, after))
    top = max(first.max(), second.max())
    bars = tuple(
        Bar(100 * n / BINS, 100 / BINS, 100 * a / top, 100 * b / top,
            f"{edges[n]:.3f} to {edges[n + 1]:.3f}: {a:,} before, {b:,} after")
        for n, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True))
    )  # fmt: skip
    ticks = tuple((100 * n / 4, f"{low + n * (high - low) / 4:.2f}") for n in range(5))
    return Scores(bars, ticks, float(np.median(before)), float(np.median(after)))


def settings_lines(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """The settings as they are told of."""
    checks = [name for step in settings["checks"] for name in step]
    told = {"candidates": settings["candidates"] or "every readable sample", "dropped by": settings["dropped"],
            "backend": settings["backend"], "prompts": settings["prompts"],
            "samples per image": settings["samples_per_image"], "seed": settings["seed"],
            "scorer": settings["scorer"], "checks": checks, "mix": settings["mix"]}  # fmt: skip
    return [(name, words.value(value)) for name, value in told.items() if value is not None]


def run_facts(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """What may differ between two runs of the same request."""
    run = manifest["run"]
    facts = [(f"{stage}, seconds", f"{spent:,.1f}") for stage, spent in run["seconds"].items()]
    speed = run["captions_per_second"]
    return [*facts, ("asked in this run", words.count(run["asked"])),
            ("answered before", words.count(run["answered_before"])),
            ("captions per second", "–" if speed is None else f"{speed:,.1f}")]  # fmt: skip


def _bars(counted: dict[str, int], whole: int) -> list[tuple[str, int, float]]:
    """Texts with their counts and shares in percent, the most frequent first."""
    return [(words.tidy(text), n, round(100 * n / max(whole, 1), 2)) for text, n in list(counted.items())[:20]]
