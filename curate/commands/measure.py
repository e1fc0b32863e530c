"""curate measure: fill the feature cache of a pool."""

from __future__ import annotations

import json

import click

from curate.commands import with_scorer
from curate.curation import measure
from curate.engines import open_engine
from curate.features import feature_class
from curate.pool import open_pool
from curate.progress import show_progress
from curate.recipe import Recipe, load_recipe, parse_recipe


@click.command()
@click.argument("pool")
@click.option("--features", help="Names with commas between.  [default: those of the default recipe]")
@click.option("-r", "--recipe", help="Measure what this recipe's filters read; also sets parameters of features.")
@click.option("--set", "changes", multiple=True, metavar="PATH=VALUE", help="features.FEATURE.PARAMETER=VALUE")
@click.option("--metadata", help="Folder of DataComp's metadata for a pool of tars: gives sizes and scores, by uid.")
@click.option("--engine", "engine_name", default="local", show_default=True, help="local or spark.")
@click.option("--workers", type=click.IntRange(1), help="Processes or threads. Default: one per core.")
@click.option("--cache", help="Folder or URL for the features.  [default: POOL/_features]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    pool: str,
    features: str | None,
    recipe: str | None,
    changes: tuple[str, ...],
    metadata: str | None,
    engine_name: str,
    workers: int | None,
    cache: str | None,
    as_json: bool,
) -> None:
    """Measure the features of POOL that its cache lacks, so that `curate filter` only has to decide."""
    if metadata:
        changes += (f"features.datacomp.metadata={json.dumps(metadata)}",)
    chosen = _wanted(features, changes) if features else load_recipe(recipe, changes)
    opened, engine = open_pool(pool, cache), open_engine(engine_name, workers)
    try:
        chosen = with_scorer(chosen, opened, engine)
        with show_progress() as progress:
            measured = measure(opened, chosen, engine, progress)
    finally:
        engine.close()
    facts = {"samples": measured.samples, "cache": opened.cache.url, **measured.as_dict()}
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    names = ", ".join(facts["features_measured"]) or "nothing: the cache has it all"
    click.echo(f"{facts['samples']:,} samples; measured {names}; images decoded: {facts['images_decoded']:,}")
    click.echo(f"features: {facts['cache']}")


def _wanted(features: str, changes: tuple[str, ...]) -> Recipe:
    names = [name.strip() for name in features.split(",") if name.strip()]
    for name in names:
        feature_class(name)  # says which there are if there is none of that name
    return parse_recipe({"features": {name: {} for name in names}}, "--features", changes)
