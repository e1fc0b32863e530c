"""The curation of a pool as a Prefect flow: a task per stage, each of which resumes where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from curate.curation import MANIFEST, REPORT, curate_pool
from curate.engines import open_engine
from curate.errors import RequestError
from curate.pool import open_pool
from curate.recipe import load_recipe
from curate.storage import Folder
from curate.write import SAMPLES_PER_SHARD

RETRY_SECONDS = (5.0, 30.0)
T = TypeVar("T")


@flow(name="curation")
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
    target = Folder(out)
    running = open_engine(engine, workers)
    source, asked = open_pool(pool, cache), load_recipe(recipe, tuple(changes))
    try:
        if any(feature.name == "bootstrap" for feature in asked.features):
            from flows.bootstrap import with_scorer  # loads torch

            chosen = run_as_task("scorer", lambda: with_scorer(asked, source, running))
        else:
            chosen = asked
        manifest = curate_pool(
            source,
            chosen,
            target,
            running,
            samples_per_shard=samples_per_shard,
            overwrite=overwrite,
            stage=run_as_task,
        )
    finally:
        running.close()
    publish(target, manifest)
    return manifest


def run_as_task(name: str, work: Callable[[], T]) -> T:
    """Run a stage as a task with retries.

    Stages keep what they finished on disk, so a retry goes on from there and Prefect has nothing to cache.
    """
    delays: list[float] = [*RETRY_SECONDS]
    staged = task(
        name=name,
        retries=len(delays),
        retry_delay_seconds=delays,
        retry_condition_fn=_may_pass,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    return staged(work)()


def _may_pass(_task: Any, _run: Any, state: State[Any]) -> bool:
    """A wrong request is wrong the next time too."""
    return not isinstance(state.result(raise_on_failure=False), RequestError)


def publish(out: Folder, manifest: dict[str, Any]) -> None:
    """Show the funnel and the report among the run's artifacts."""
    create_table_artifact(manifest["funnel"], key="funnel", description=f"{manifest['name']}: {out.url}")
    report = Path(out.path(REPORT)).resolve().as_uri() if out.is_local else f"{out.url}/{REPORT}"
    create_link_artifact(report, key="report", link_text=f"Report of {out.url}", description=f"{out.url}/{MANIFEST}")
