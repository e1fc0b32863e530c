"""curate demo: the whole pipeline on a generated web, offline, with its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from curate.commands.filter import funnel_table
from curate.commands.run import run_flow
from curate.errors import RequestError, WorkError


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default="demo")
@click.option("--samples", type=click.IntRange(100), default=3000, show_default=True, help="Clean pairs on the web.")
@click.option("--samples-seen", type=click.IntRange(256), default=38_400, show_default=True, help="Per training.")
@click.option(
    "--writer-samples",
    type=click.IntRange(0),
    default=32_000,
    show_default=True,
    help="Seen by the CoCa that writes new captions; 0: none.",
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Trainings per arm.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(folder: Path, samples: int, samples_seen: int, writer_samples: int, seeds: int, as_json: bool) -> None:
    """Make a small web with planted defects in FOLDER, crawl, download and curate it, and prove the result.

    Needs no network: the web is served on this machine. Takes about nine minutes on two cores.
    """
    from flows.demo import DemoSize, run_demo

    size = DemoSize(
        samples=samples, samples_seen=samples_seen, writer_samples=writer_samples, seeds=tuple(range(seeds))
    )
    try:
        result = run_demo(folder, run_flow, size)
    except ValueError as wrong:  # the trainer's way to say that a folder holds another training
        raise RequestError(f"FOLDER: {wrong}") from wrong
    except FloatingPointError as diverged:
        raise WorkError(str(diverged)) from diverged
    click.echo(json.dumps(result, indent=2) if as_json else _summary(result))


def _recaptioned(found: dict[str, Any]) -> str:
    counts, named = found["counts"], found["names_an_object"]
    line = f"recaptioned {counts['replaced']} of {counts['candidates']} samples that clip_score dropped"
    if named["now"] is None:
        return line
    return f"{line}; captions that name an object which is there: {named['before']:.0%} before, {named['now']:.0%} now"


def _summary(result: dict[str, Any]) -> str:
    crawled, downloaded = result["crawl"], result["download"]
    failed = ", ".join(f"{count} {reason}" for reason, count in downloaded["failed"].items()) or "none"
    lines = [
        "",
        f"crawled     {crawled['pages_read']} pages, {crawled['pairs']} pairs",
        f"downloaded  {downloaded['downloaded']} images; failed: {failed}",
        "",
        funnel_table(result["manifest"]),
        "",
        f"{'planted defect':<22} {'planted':>8} {'caught':>8} {'missed':>8} {'at download':>12}",
    ]
    lines += [
        f"{d['defect']:<22} {d['planted']:>8} {d['caught']:>8} {d['missed']:>8} {d['caught_at_download']:>12}"
        for d in result["defects"]["defects"]
    ]
    lost = result["defects"]["good_lost"]
    lines += [f"good samples lost: {lost['count']} of {lost['of']}", ""]
    if result["recaption"]:
        lines += [_recaptioned(result["recaption"]), ""]
    evidence = result["evidence"]
    for arm in evidence["arms"]:
        low, high = arm["interval"]
        lines.append(
            f"{arm['name']:<8} accuracy {arm['accuracy']:.1%}  95 % interval {low:.1%} to {high:.1%}  "
            f"{len(arm['seeds'])} seeds, {arm['samples']} samples seen {arm['repeats']:.1f} times each"
        )
    for found in evidence["comparisons"]:
        low, high = found["interval"]
        lines.append(
            f"{found['b']} against {found['a']}: {found['verdict']}, {100 * found['difference']:+.1f} points "
            f"[{100 * low:+.1f}, {100 * high:+.1f}]"
        )
    lines += ["", f"report: {result['report']}  ({result['seconds']:.0f} s)"]
    return "\n".join(lines)
