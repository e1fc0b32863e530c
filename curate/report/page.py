"""Puts the report together: everything the template shows, and the one file it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2

from curate.pool import Pool
from curate.report import words
from curate.report.charts import Drawing, draw
from curate.report.evidence import read_evidence, read_planted
from curate.report.histograms import charts_of, gather
from curate.report.ledger import KEPT, Ledger, Verdict, read_ledger
from curate.report.measured import Step, open_measured, steps_of
from curate.report.pictures import Picture, Pictures
from curate.storage import Folder

REPORT = "report.html"
SELECTION = "selection.parquet"
KEPT_EXAMPLES = 16
DROPPED_EXAMPLES = 6
ALL_DROPPED_EXAMPLES = 160
"""Bounds the file: a recipe of many filters shows fewer examples of each."""
REASONS = 6


@dataclass(frozen=True)
class Row:
    """A filter in the funnel. Widths are in percent of the pool's samples."""

    filter: str
    samples_in: int
    dropped: int
    samples_out: int
    share: str
    out_width: float
    dropped_width: float


@dataclass(frozen=True)
class Example:
    """A sample with its picture, and the one it duplicates, if it does."""

    verdict: Verdict
    picture: Picture
    survivor: Verdict | None = None
    survivor_picture: Picture | None = None


@dataclass(frozen=True)
class Card:
    """All about one filter."""

    number: int
    """Its place in the funnel, from 1."""
    row: Row
    parameters: tuple[tuple[str, str], ...]
    reasons: tuple[tuple[str, int], ...]
    other_reasons: int
    """Reasons beyond those shown."""
    examples: tuple[Example, ...]
    drawings: tuple[Drawing, ...]


def write_report(out: Folder, manifest: dict[str, Any], pool: Pool) -> None:
    """Write OUT/report.html from the selection at `out`, its manifest, and what the pool's cache still holds.

    Without the cached features the report has no charts and no pictures, and says so. The same dataset gives
    the same bytes, except for the section "This run".
    """
    out.write_bytes(REPORT, render(out, manifest, pool).encode("utf-8", "replace"))


def render(out: Folder, manifest: dict[str, Any], pool: Pool) -> str:
    """The report as HTML."""
    steps, rows = steps_of(manifest), funnel_rows(manifest)
    measured = open_measured(manifest, pool)
    pictures = Pictures(measured)
    dropping = sum(row.dropped > 0 for row in rows)
    per_filter = max(1, min(DROPPED_EXAMPLES, ALL_DROPPED_EXAMPLES // max(dropping, 1)))
    with out.local_copy(SELECTION) as path:
        ledger = read_ledger(path, per_filter, KEPT_EXAMPLES)
        charts = charts_of(steps, measured.columns)
        histograms = gather(path, charts, measured, [row.filter for row in rows])
    drawings = [(histogram.chart.filter, draw(histogram)) for histogram in histograms]
    evidence, problems = read_evidence(out)
    planted, more_problems = read_planted(out)
    examples = {name: _examples(ledger, name, pictures) for name in [KEPT, *(row.filter for row in rows)]}
    return template("report.html.j2").render(
        manifest=manifest,
        name=words.tidy(manifest["name"]),
        verdict=verdict_line(manifest),
        rows=rows,
        cards=[_card(n, row, steps, ledger, examples[row.filter], drawings) for n, row in enumerate(rows, 1)],
        kept=examples[KEPT],
        recaption=recaption_line(manifest.get("recaption")),
        evidence=evidence,
        planted=planted,
        notes=[*_notes(manifest, measured.missing, examples, histograms, charts), *problems, *more_problems],
        run=run_facts(manifest),
    )


def verdict_line(manifest: dict[str, Any]) -> str:
    """What came of the run, in a sentence or two."""
    kept, rows = manifest["selection"]["kept"], manifest["selection"]["rows"]
    said = f"Kept {words.count(kept)} of {words.plural(rows, 'sample')} ({words.share(kept, rows)})."
    most = max(manifest["funnel"], key=lambda step: step["dropped"])
    if most["dropped"]:
        lost = f"{words.count(most['dropped'])}, or {words.share(most['dropped'], rows)} of the pool"
        said += f" {most['filter']} dropped the most: {lost}."
    return said


def recaption_line(found: dict[str, Any] | None) -> str | None:
    """What the captions were before the first filter saw them, if a recipe had some written."""
    if found is None:
        return None
    counts = found["counts"]
    replaced, whole = words.count(counts["replaced"]), words.plural(counts["samples"], "sample")
    candidates = words.plural(counts["candidates"], "sample")
    return f"Before the first filter, {replaced} of {whole} got a new caption; {candidates} were candidates."


def funnel_rows(manifest: dict[str, Any]) -> list[Row]:
    """The funnel, with what the bars need."""
    whole = max(manifest["funnel"][0]["in"], 1)
    return [
        Row(
            step["filter"],
            step["in"],
            step["dropped"],
            step["out"],
            words.share(step["dropped"], step["in"]),
            round(100 * step["out"] / whole, 3),
            round(100 * step["dropped"] / whole, 3),
        )
        for step in manifest["funnel"]
    ]


def run_facts(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """What may differ between two runs of the same request: times, and what came from the cache."""
    measure, seconds = manifest["measure"], manifest["seconds"]
    facts = [(f"{stage}, seconds", f"{spent:,.1f}") for stage, spent in seconds.items()]
    facts += [
        ("samples measured", words.count(measure["samples_measured"])),
        ("samples per second", "–" if not measure["samples_per_second"] else f"{measure['samples_per_second']:,.0f}"),
        ("images decoded", words.count(measure["images_decoded"])),
        ("shards measured", words.count(measure["shards_measured"])),
        ("shards from the cache", words.count(measure["shards_cached"])),
        ("features measured", ", ".join(measure["features_measured"]) or "none"),
    ]
    slowest = sorted(manifest["funnel"], key=lambda step: -step["seconds"])[:3]
    facts.append(("slowest decisions", ", ".join(f"{s['filter']} {s['seconds']:.2f} s" for s in slowest)))
    return facts


def _card(
    number: int, row: Row, steps: Sequence[Step], ledger: Ledger, examples: tuple[Example, ...],
    drawings: Sequence[tuple[str, Drawing]],
) -> Card:  # fmt: skip
    step = next((step for step in steps if step.name == row.filter), None)
    parameters = step.parameters if step else {}
    reasons = ledger.reasons.get(row.filter, [])
    return Card(
        number,
        row,
        tuple((name, words.value(value)) for name, value in parameters.items()),
        tuple((words.tidy(text), n) for text, n in reasons[:REASONS]),
        max(0, len(reasons) - REASONS),
        examples,
        tuple(drawing for name, drawing in drawings if name == row.filter),
    )


def _examples(ledger: Ledger, name: str, pictures: Pictures) -> tuple[Example, ...]:
    found = []
    for verdict in ledger.examples.get(name, []):
        survivor = ledger.survivors.get(verdict.duplicate_of or "")
        found.append(Example(verdict, pictures.of(verdict), survivor, pictures.of(survivor) if survivor else None))
    return tuple(found)


def _notes(
    manifest: dict[str, Any], missing: Sequence[str], examples: dict[str, tuple[Example, ...]],
    histograms: Sequence[object], charts: Sequence[object],
) -> list[str]:  # fmt: skip
    """What the report could not show, and why."""
    notes = []
    if "earlier" in manifest:
        count = manifest["earlier"]["earlier_samples"]
        notes.append(f"Compared with {count:,} samples of earlier pools; what duplicates one of those is shown alone.")
    if missing:
        notes.append(
            f"The pool's cache does not hold these features, so what needs them is not shown: {', '.join(missing)}."
        )
    elif len(histograms) < len(charts):
        notes.append("Some charts are not shown: the cached features of the pool no longer fit this selection.")
    shown = [example for found in examples.values() for example in found]
    if shown and not any(example.picture.caption or example.picture.thumbnail for example in shown):
        notes.append(f"Pictures and captions are not shown: {manifest['pool']['url']} could not be read.")
    return notes


def template(name: str) -> jinja2.Template:
    """A template of this folder; what is put into it is escaped."""
    folder = files("curate.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "count": words.count,
        "tidy": words.tidy,
        "points": words.points,
    }
    environment.globals |= {"share": words.share, "plural": words.plural}
    return environment.get_template(name)
