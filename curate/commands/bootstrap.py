"""curate bootstrap: train a scorer on a pool itself."""

from __future__ import annotations

from pathlib import Path

import click

from curate.engines import open_engine
from curate.errors import RequestError
from curate.features.bootstrap import Bootstrap
from curate.pool import open_pool
from curate.progress import show_progress
from curate.recipe import load_recipe, parse_recipe


@click.command()
@click.argument("pool")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("-r", "--recipe", help="Train on what this recipe keeps.  [default: all that can be read]")
@click.option("--set", "changes", multiple=True, metavar="PATH=VALUE", help="Change one parameter of the recipe.")
@click.option("--scale", default="tiny", show_default=True, help="tiny, small, medium or large.")
@click.option(
    "--samples-seen",
    type=click.IntRange(min=1),
    help="Pairs each model sees, repeats included.  [default: 1.5 times the scale's]",
)
@click.option("--folds", default=2, show_default=True, type=click.IntRange(2, 16))
@click.option("--rounds", default=2, show_default=True, type=click.IntRange(1, 10))
@click.option("--keep-fraction", default=0.5, show_default=True, help="Share of the pairs to train on after a round.")
@click.option("--trusted", help="Shards of pairs known to be good: train one model on them, and on nothing else.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--workers", type=click.IntRange(1), help="Processes. Default: one per core.")
@click.option("--cache", help="Folder or URL for the features.  [default: POOL/_features]")
def command(
    pool: str,
    out: Path,
    recipe: str | None,
    changes: tuple[str, ...],
    scale: str,
    samples_seen: int | None,
    folds: int,
    rounds: int,
    keep_fraction: float,
    trusted: str | None,
    seed: int,
    workers: int | None,
    cache: str | None,
) -> None:
    """Train models on POOL that judge how well its images and captions agree, and write them to OUT.

    Each fold of the pool is judged by a model that was trained on the others. Use the scores as
    `features: {bootstrap: {scorer: OUT}}`, column bootstrap_score. Run again, the command resumes.
    """
    from flows.bootstrap import bootstrap

    parameters = {"scale": scale, "samples_seen": samples_seen, "folds": folds, "rounds": rounds,
                  "keep_fraction": keep_fraction, "trusted": trusted, "seed": seed}  # fmt: skip
    before = load_recipe(recipe, changes) if recipe else parse_recipe({}, "--set", changes)
    try:
        wanted = Bootstrap.model_validate(parameters)
    except ValueError as wrong:
        raise RequestError(" ".join(str(wrong).split())) from wrong
    opened, engine = open_pool(pool, cache), open_engine("local", workers)
    try:
        with show_progress():
            bootstrap(opened, out, wanted, engine, before)
    finally:
        engine.close()
    click.echo(f"scorer: {out}")
    click.echo(f"use it:  curate filter {pool} DATASET -r bootstrap --set features.bootstrap.scorer={out}")
