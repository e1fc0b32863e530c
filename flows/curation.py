"""The curation of a pool as a Prefect flow: a task per stage, each of which resumes where it was stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from curate.curation import (
    MANIFEST,
    REPORT,
    Measured,
    check_out,
    decide,
    finish,
    finished,
    make_manifest,
    measure,
    request_of,
    write_dataset,
)
from curate.engines import Engine, open_engine
from curate.pool import Pool, open_pool
from curate.recipe import Recipe, load_recipe
from curate.select import Selection, write_selection
from curate.storage import Folder
from curate.write import SAMPLES_PER_SHARD, WrittenShard

# Stages keep what they finished on disk, so a retry goes on from there; Prefect's own cache is not needed.
STAGE: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [5, 30],
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


@task(name="measure", **STAGE)
def measure_stage(pool: Pool, recipe: Recipe, engine: Engine) -> Measured:
    """Fill the feature cache."""
    measured = measure(pool, recipe, engine)
    facts = measured.as_dict()
    get_run_logger().info(
        "%d samples; measured %d shards, %d from the cache; images decoded: %d",
        measured.samples, facts["shards_measured"], facts["shards_cached"], facts["images_decoded"],
    )  # fmt: skip
    return measured


@task(name="select", **STAGE)
def select_stage(engine: Engine, measured: Measured, recipe: Recipe, out: Folder) -> Selection:
    """Decide on every sample and write selection.parquet."""
    chosen = decide(engine, measured, recipe)
    write_selection(chosen, out)
    get_run_logger().info("kept %d of %d samples", chosen.kept, chosen.samples)
    return chosen


@task(name="write", **STAGE)
def write_stage(engine: Engine, measured: Measured, out: Folder, samples_per_shard: int) -> list[WrittenShard]:
    """Copy the kept samples into shards."""
    return write_dataset(engine, measured.tasks, out, samples_per_shard)


@task(name="report", **STAGE)
def report_stage(pool: Pool, out: Folder, manifest: dict[str, Any]) -> None:
    """Write the report and the manifest, and publish the funnel."""
    finish(pool, out, manifest)


@flow(name="curation", log_prints=False)
def curation(
    pool: str,
    out: str,
    recipe: str | None = None,
    changes: Sequence[str] = (),
    engine: str = "local",
    workers: int | None = None,
    cache: str | None = None,
    samples_per_shard: int = SAMPLES_PER_SHARD,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Curate the pool into a dataset at `out` and return its manifest, as `curate filter` does."""
    chosen_recipe = load_recipe(recipe, tuple(changes))
    opened, target = open_pool(pool, cache), Folder(out)
    check_out(opened, target)
    running = open_engine(engine, workers)
    try:
        measured = measure_stage(opened, chosen_recipe, running)
        request = request_of(measured, chosen_recipe, samples_per_shard)
        manifest = finished(target, request, overwrite)
        if manifest is None:
            began = time.perf_counter()
            chosen = select_stage(running, measured, chosen_recipe, target)
            selected = time.perf_counter()
            written = write_stage(running, measured, target, samples_per_shard)
            seconds = {
                "measure": round(measured.seconds, 3),
                "select": round(selected - began, 3),
                "write": round(time.perf_counter() - selected, 3),
            }
            manifest = request | make_manifest(opened, chosen_recipe, target, measured, chosen, written, seconds)
            report_stage(opened, target, manifest)
    finally:
        running.close()
    publish(target, manifest)
    return manifest


def publish(out: Folder, manifest: dict[str, Any]) -> None:
    """Show the funnel and the report among the run's artifacts."""
    create_table_artifact(manifest["funnel"], key="funnel", description=f"{manifest['name']}: {out.url}")
    report = Path(out.path(REPORT)).resolve().as_uri() if out.is_local else f"{out.url}/{REPORT}"
    create_link_artifact(report, key="report", link_text=f"Report of {out.url}", description=f"{out.url}/{MANIFEST}")
