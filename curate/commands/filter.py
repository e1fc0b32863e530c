"""curate filter: a pool in, a curated dataset out."""

from __future__ import annotations

import json
from typing import Any

import click

from curate import metrics
from curate.commands import with_scorer
from curate.curation import MANIFEST, REPORT, SUBSET, curate_pool, decide, measure, warnings
from curate.engines import NAMES, Engine, open_engine
from curate.pool import Pool, open_pool
from curate.preview import examples_text, preview
from curate.progress import Report, show_progress
from curate.recaption.stage import recaptioned
from curate.recipe import Recipe, load_recipe
from curate.storage import Folder
from curate.sweep import Sweep, split_sweep, sweep_pool, sweep_table
from curate.write import SAMPLES_PER_SHARD


@click.command()
@click.argument("pool")
@click.argument("out", required=False)
@click.option("-r", "--recipe", help="A YAML file, or the name of a built-in recipe (see `curate recipes`).")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="PATH=VALUE[,VALUE...]",
    help="Change one parameter: image_size.min_side=32. Several values compare what each keeps, and write nothing.",
)
@click.option("--metadata", help="Folder of DataComp's metadata for a pool of tars: gives sizes and scores, by uid.")
@click.option(
    "--engine", "engine_name", default="local", show_default=True, help=f"Where it runs: {' or '.join(NAMES)}."
)
@click.option(
    "--workers", type=click.IntRange(1), help="Processes (local) or threads (a local Spark). Default: one per core."
)
@click.option("--cache", help="Folder or URL for the features.  [default: POOL/_features]")
@click.option("--samples-per-shard", type=click.IntRange(1), default=SAMPLES_PER_SHARD, show_default=True)
@click.option("--after", help="Folder or URL that remembers earlier pools: compare with them, and remember this one.")
@click.option("--overwrite", is_flag=True, help="Replace a dataset at OUT that was made from another request.")
@click.option("--dry-run", is_flag=True, help="Measure, decide and show examples; write nothing but the feature cache.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    pool: str,
    out: str | None,
    recipe: str | None,
    changes: tuple[str, ...],
    metadata: str | None,
    engine_name: str,
    workers: int | None,
    cache: str | None,
    samples_per_shard: int,
    after: str | None,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Curate the WebDataset shards of POOL into OUT.

    Without a recipe it keeps readable, distinct images of a useful size with an English caption that is not
    boilerplate. Every sample gets a verdict and a reason in OUT/selection.parquet; OUT/report.html shows them.
    """
    single, sweep = split_sweep(changes)
    if metadata:
        single += (f"features.datacomp.metadata={json.dumps(metadata)}",)
    recipes = [load_recipe(recipe, single)] if sweep is None else sweep_recipes(recipe, single, sweep)
    opened = open_pool(pool, cache)
    if sweep is not None and out is not None:
        raise click.UsageError("OUT: --set with several values writes nothing; leave OUT out, or give one value")
    if sweep is None and out is None and not dry_run:
        raise click.UsageError("OUT: give a folder for the dataset, or --dry-run")
    if after is not None and (sweep is not None or dry_run):
        raise click.UsageError("--after: a dry run and --set with several values remember nothing; leave it out")
    engine = open_engine(engine_name, workers)
    try:
        recipes = [with_scorer(chosen, opened, engine) for chosen in recipes]
        with show_progress() as progress:
            if sweep is not None:
                result = _swept(opened, recipes, sweep, engine, progress)
            elif dry_run:
                result = _previewed(opened, recipes[0], engine, progress)
            else:
                counted = metrics.dataset_at(Folder(str(out)))
                result = curate_pool(
                    opened,
                    recipes[0],
                    Folder(str(out)),
                    engine,
                    samples_per_shard=samples_per_shard,
                    overwrite=overwrite,
                    progress=progress,
                    after=after,
                )
                counted(result)
    finally:
        engine.close()
    click.echo(json.dumps(result, indent=2) if as_json else summary(result, out))


def sweep_recipes(recipe: str | None, changes: tuple[str, ...], sweep: Sweep) -> list[Recipe]:
    """The recipe with each value of a sweep."""
    return [load_recipe(recipe, (*changes, f"{sweep.path}={value}")) for value in sweep.values]


def _previewed(pool: Pool, recipe: Recipe, engine: Engine, progress: Report) -> dict[str, Any]:
    measured = measure(recaptioned(pool, recipe, engine, progress), recipe, engine, progress)
    selection = decide(engine, measured, recipe, every_reason=False)
    return {
        "measure": measured.as_dict(),
        "funnel": [step.as_dict() for step in selection.funnel],
        "selection": {
            "rows": selection.samples, "kept": selection.kept, "dropped": selection.samples - selection.kept,
        },
        "warnings": warnings(selection),
        "examples": preview(selection).as_dict(),
    }  # fmt: skip


def _swept(pool: Pool, recipes: list[Recipe], sweep: Sweep, engine: Engine, progress: Report) -> dict[str, Any]:
    if sweep.path.startswith("recaption."):
        raise click.UsageError(f"--set {sweep.path}: captions are not compared here; `curate ablate` trains on each")
    pool = recaptioned(pool, recipes[0], engine, progress)
    found = sweep_pool(engine, sweep, recipes, lambda recipe: measure(pool, recipe, engine, progress).tasks)
    return {
        "parameter": sweep.path,
        "rows": found[0].samples,
        "values": [value.as_dict(sweep.values) for value in found],
    }


def funnel_table(result: dict[str, Any]) -> str:
    """What each filter did, as a plain table."""
    width = max(len(step["filter"]) for step in result["funnel"])
    lines = [f"{'filter':<{width}} {'in':>12} {'dropped':>12} {'out':>12}"]
    lines += [
        f"{step['filter']:<{width}} {step['in']:>12,} {step['dropped']:>12,} {step['out']:>12,}"
        for step in result["funnel"]
    ]
    selection = result["selection"]
    share = selection["kept"] / selection["rows"]
    lines.append(f"kept {selection['kept']:,} of {selection['rows']:,} samples ({share:.1%})")
    return "\n".join(lines)


def _recaption_line(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    counts = found["counts"]
    return [
        f"recaptioned: {counts['replaced']:,} of {counts['samples']:,} samples have a new caption as their text "
        f"({counts['candidates']:,} candidates)  {found['folder']}"
    ]


def summary(result: dict[str, Any], out: str | None) -> str:
    """The funnel, what was measured, and examples or where things are; or the table of a sweep."""
    if "parameter" in result:
        return sweep_table(result)
    measured = result["measure"]
    lines = [
        *_recaption_line(result.get("recaption")),
        funnel_table(result),
        f"images decoded: {measured['images_decoded']:,}; shards measured: {measured['shards_measured']}, "
        f"from the cache: {measured['shards_cached']}",
    ]
    if "examples" in result:
        lines.insert(0, examples_text(result["examples"]))
    if out is not None and "shards" in result:
        written = f"shards: {out}/shards" if result["shards"] else f"subset: {out}/{SUBSET}"
        lines.append(f"{written}  manifest: {out}/{MANIFEST}  report: {out}/{REPORT}")
    return "\n".join(lines)
