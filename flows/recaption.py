"""Recaptioning as a Prefect flow: a task per stage, each of which resumes where it was stopped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from prefect import flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from curate.engines import open_engine
from curate.pool import open_pool
from curate.recaption.run import recaption_pool
from curate.recaption.settings import load_settings
from curate.recaption.write import read_captions
from curate.storage import Folder
from flows.notify import HOOKS
from flows.stages import alone, dated, staged

REPORT = "report.html"
EXAMPLES = 10
LONG = 300
"""Characters of a caption that an artifact shows."""


@flow(name="recaption", **HOOKS)
def recaption(
    pool: str,
    out: str,
    settings: str | None = None,
    changes: Sequence[str] = (),
    workers: int | None = None,
    cache: str | None = None,
    overwrite: bool = False,
    rounds: int = 2,
    stage_timeout: float | None = None,
) -> dict[str, Any]:
    """Write the pool with new captions to `out` and return the manifest, as `curate recaption` does.

    Captions are written by the task `recaption`, whose tag `curate-recaption` a concurrency limit can name: so many
    runs ask their backends at the same time.

    Args:
        pool, out, cache: folders or URLs; `{date}` and `{time}` in them are those that the run was scheduled for.
        settings: a YAML file as `curate recaption -r` takes it.
        rounds: how often what failed for now is asked, the first time counted.
        stage_timeout: seconds that each try of a stage may take.
    """
    pool, out, cache = dated(pool), dated(out), dated(cache) if cache else None
    target, asked, source = Folder(out), load_settings(settings, tuple(changes)), open_pool(pool, cache)
    engine = open_engine("local", workers)
    try:
        with alone(out):
            for _ in range(max(1, rounds)):
                manifest = recaption_pool(
                    source, asked, target, engine, overwrite=overwrite, stage=staged(stage_timeout)
                )
                if not manifest["counts"]["ask_again"]:
                    break
    finally:
        engine.close()
    publish(target, manifest)
    return manifest


def publish(out: Folder, manifest: dict[str, Any]) -> None:
    """Show the counts, some captions and the report among the run's artifacts."""
    table = [{"what": name, "count": count} for name, count in flat(manifest["counts"])]
    create_table_artifact(table, key="recaption-counts", description=out.url)
    create_markdown_artifact(examples(out), key="recaption-examples")
    report = Path(out.path(REPORT)).resolve().as_uri() if out.is_local else f"{out.url}/{REPORT}"
    create_link_artifact(report, key="recaption-report", link_text=f"Report of {out.url}")


def flat(counts: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Counts within counts as one list.

    >>> flat({"candidates": 5, "refused": {"length": 2}})
    [('candidates', 5), ('refused: length', 2)]
    """
    found: list[tuple[str, Any]] = []
    for name, value in counts.items():
        found += flat(value, f"{before}{name}: ") if isinstance(value, dict) else [(f"{before}{name}", value)]
    return found


def examples(out: Folder) -> str:
    """Some samples that got a new caption, before and after, as Markdown in which the captions are only text."""
    table = read_captions(out)
    taken = table.filter(pc.and_(table["text"], pc.greater_equal(table["number"], 0)))
    lines = ["| key | original | written |", "| --- | --- | --- |"]
    for row in taken.slice(0, EXAMPLES).to_pylist():
        same = pc.and_(pc.equal(table["uid"], row["uid"]), pc.equal(table["number"], -1))
        own = table.filter(same)["caption"][0].as_py()
        lines.append(f"| {plain(row['key'])} | {plain(own or 'none')} | {plain(row['caption'])} |")
    return "\n".join([f"# New captions in {plain(out.url)}", "", *lines, ""])


def plain(text: str) -> str:
    """Text that Markdown shows as it is.

    >>> plain("a <b>*red*</b> car")
    'a \\\\<b\\\\>\\\\*red\\\\*\\\\</b\\\\> car'
    """
    short = " ".join(text.split())
    short = f"{short[:LONG]}…" if len(short) > LONG else short
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~&^$:.-])", r"\\\1", short)
