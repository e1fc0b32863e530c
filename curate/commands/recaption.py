"""curate recaption: a pool in, the same pool with new captions out."""

from __future__ import annotations

import json
from typing import Any

import click

from curate.engines import open_engine
from curate.pool import open_pool
from curate.progress import show_progress
from curate.recaption.run import preview_pool, recaption_pool
from curate.recaption.settings import load_settings
from curate.storage import Folder


@click.command()
@click.argument("pool")
@click.argument("out", required=False)
@click.option("-r", "--recaption", "file", help="A YAML file of settings, or a recipe with `recaption:`.")
@click.option("--set", "changes", multiple=True, metavar="PATH=VALUE", help="Change one setting: mix.ratio=0.3.")
@click.option("--dropped-by", metavar="FILTERS", help="Only what these filters dropped, with commas between; see --of.")
@click.option("--of", "curated", help="OUT of the `curate filter` whose verdicts --dropped-by means.")
@click.option("--workers", type=click.IntRange(1), help="Processes for measuring and writing. Default: one per core.")
@click.option("--cache", help="Folder or URL for features and captions.  [default: POOL/_features]")
@click.option("--overwrite", is_flag=True, help="Replace what another request wrote to OUT.")
@click.option("--dry-run", is_flag=True, help="Count what would be asked for; ask nothing, write nothing but features.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    pool: str,
    out: str | None,
    file: str | None,
    changes: tuple[str, ...],
    dropped_by: str | None,
    curated: str | None,
    workers: int | None,
    cache: str | None,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write the samples of POOL to OUT with new captions where their own are poor.

    Every sample is there again, image bytes and keys as they were; the caption that was is kept beside the new one.
    """
    if (dropped_by is None) != (curated is None):
        raise click.UsageError("--dropped-by and --of go together: which filters, and OUT of which `curate filter`")
    if dropped_by is not None:
        names = [name.strip() for name in dropped_by.split(",")]
        changes += (f"dropped={json.dumps({'of': curated, 'by': names})}",)
    settings = load_settings(file, changes)
    if out is None and not dry_run:
        raise click.UsageError("OUT: give a folder for the samples, or --dry-run")
    opened, engine = open_pool(pool, cache), open_engine("local", workers)
    try:
        with show_progress() as progress:
            if dry_run or out is None:
                result = preview_pool(opened, settings, engine, progress)
            else:
                result = recaption_pool(opened, settings, Folder(out), engine, overwrite=overwrite, progress=progress)
    finally:
        engine.close()
    click.echo(json.dumps(result, indent=2) if as_json else summary(result, out))


def summary(result: dict[str, Any], out: str | None) -> str:
    """What became of the candidates, and where things are; or what would be asked for."""
    if "known" in result:
        left = result["requests"] - result["known"]
        return f"{result['candidates']:,} candidates; {left:,} captions to ask {result['backend']['name']} for, " + (
            f"{result['known']:,} known"
        )
    found, run = result["counts"], result["run"]
    lines = [
        f"{found['candidates']:,} of {found['samples']:,} samples are candidates; "
        f"{found['written']:,} captions written, {found['passed']:,} passed the checks",
    ]
    lines += [f"  {count:,} refused by {name}" for name, count in found["refused"].items()]
    lines += [f"  {count:,} failed: {error}" for error, count in list(found["failed"].items())[:10]]
    lines.append(f"{found['replaced']:,} samples have a new caption as their text")
    if found["beside"]:
        lines.append(f"{found['beside']:,} samples have new captions beside their own")
    lines += [f"  {count:,} {reason}" for reason, count in found["kept"].items()]
    if found["tokens"]["in"] or found["tokens"]["out"]:
        cost = "" if found["cost"] is None else f"; cost: {found['cost']:,.4f}"
        lines.append(f"tokens in: {found['tokens']['in']:,}, out: {found['tokens']['out']:,}{cost}")
    speed = f" ({run['captions_per_second']} captions/s)" if run["captions_per_second"] else ""
    lines.append(f"asked in this run: {run['asked']:,}{speed}; answered before: {run['answered_before']:,}")
    if found["ask_again"]:
        lines.append(f"{found['ask_again']:,} requests failed and may pass: run the same command again for those")
    lines.append(f"shards: {out}/shards  captions: {out}/captions.parquet  manifest: {out}/manifest.json")
    return "\n".join(lines)
