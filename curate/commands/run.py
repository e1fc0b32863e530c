"""curate run: the curation flow under Prefect."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Sequence
from typing import Any

import click
from pydantic import ValidationError

from curate.commands.filter import summary
from curate.curation import check_out
from curate.drift import Bounds
from curate.errors import RequestError, WorkError
from curate.pool import open_pool
from curate.recipe import load_recipe
from curate.storage import Folder
from curate.write import SAMPLES_PER_SHARD

# A server of its own is slow to start on a busy machine; Prefect's default gives up after 20 s.
STARTUP_SECONDS = "180"


@click.command()
@click.argument("recipe")
@click.option("--pool", required=True, help="Folder or URL of WebDataset shards.")
@click.option("--out", required=True, help="Folder or URL for the dataset.")
@click.option("--set", "changes", multiple=True, metavar="PATH=VALUE", help="Change one parameter of the recipe.")
@click.option("--engine", default="local", show_default=True, help="local or spark.")
@click.option("--workers", type=click.IntRange(1), help="Processes or threads. Default: one per core.")
@click.option("--cache", help="Folder or URL for the features.  [default: POOL/_features]")
@click.option("--overwrite", is_flag=True, help="Replace a dataset at OUT that was made from another request.")
@click.option("--samples-per-shard", type=click.IntRange(1), default=SAMPLES_PER_SHARD, show_default=True)
@click.option("--history", help="Folder or URL of earlier runs: compare with them, and add this one.")
@click.option(
    "--drift",
    "bounds",
    multiple=True,
    metavar="NAME=VALUE",
    help="A bound of --history: psi, sigmas, points or window.",
)
@click.option(
    "--stage-timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds that each try of a stage may take."
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def command(
    recipe: str,
    pool: str,
    out: str,
    changes: tuple[str, ...],
    engine: str,
    workers: int | None,
    cache: str | None,
    overwrite: bool,
    samples_per_shard: int,
    history: str | None,
    bounds: tuple[str, ...],
    stage_timeout: float | None,
    as_json: bool,
) -> None:
    """Run RECIPE (a YAML file or a built-in name) on a pool under Prefect: tasks, retries, artifacts.

    Uses the server at PREFECT_API_URL, or starts a temporary one.
    """
    load_recipe(recipe, changes)  # a wrong request should not have to wait for a server
    check_out(open_pool(pool, cache), Folder(out))
    drift = bounds_of(bounds)
    if drift is not None and history is None:
        raise RequestError("--drift: it is about --history, which is missing")
    manifest = run_flow(
        pool=pool, out=out, recipe=recipe, changes=changes, engine=engine, workers=workers, cache=cache,
        overwrite=overwrite, samples_per_shard=samples_per_shard, history=history, drift=drift,
        stage_timeout=stage_timeout,
    )  # fmt: skip
    click.echo(json.dumps(manifest, indent=2) if as_json else summary(manifest, out))


def bounds_of(given: Sequence[str]) -> Bounds | None:
    """The bounds of drift from `NAME=VALUE`; None if none is given.

    >>> bounds_of(["psi=0.3", "window=5"])
    Bounds(psi=0.3, sigmas=3.0, points=0.02, window=5)

    Raises:
        RequestError: one is unknown, or its value is wrong.
    """
    try:
        pairs = dict(one.split("=", 1) for one in given)
    except ValueError:
        raise RequestError("--drift: write it like psi=0.2") from None
    try:
        return Bounds.model_validate_strings(pairs) if pairs else None
    except ValidationError as error:
        problem = error.errors()[0]
        known = ", ".join(Bounds.model_fields)
        raise RequestError(f"--drift: {problem['loc'][0]}: {problem['msg']}; there are {known}") from error


def run_flow(**arguments: Any) -> dict[str, Any]:
    """Run the curation flow; a failure of Prefect or of a stage becomes one line."""
    return under_prefect("flows.curation:curation", **arguments)


def under_prefect(flow: str, **arguments: Any) -> Any:
    """Run a flow (`module:name`) on the server at PREFECT_API_URL, or on a temporary one.

    Raises:
        RequestError, WorkError: as the flow says; any other failure of it or of Prefect is a WorkError of one line.
    """
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", STARTUP_SECONDS)
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    module, _, name = flow.partition(":")  # imported only now: Prefect reads its settings when it is
    try:
        return getattr(importlib.import_module(module), name)(**arguments)
    except (RequestError, WorkError):
        raise
    except Exception as error:
        raise WorkError(f"the flow failed: {type(error).__name__}: {error}") from error
