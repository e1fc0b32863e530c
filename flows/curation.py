"""The curation of a pool as a Prefect flow: a task per stage, each of which resumes where it was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from curate import metrics
from curate.curation import MANIFEST, REPORT, curate_pool
from curate.drift import Bounds
from curate.engines import open_engine
from curate.pool import open_pool
from curate.recipe import load_recipe
from curate.report.finished import pool_of
from curate.storage import Folder
from curate.write import SAMPLES_PER_SHARD
from flows.notify import HOOKS
from flows.stages import alone, dated, run_as_task, staged
from flows.watch import watch_drift

__all__ = ["curation", "publish", "run_as_task"]


@flow(name="curation", **HOOKS)
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
    history: str | None = None,
    drift: Bounds | None = None,
    stage_timeout: float | None = None,
    after: str | None = None,
) -> dict[str, Any]:
    """Curate the pool into a dataset at `out` and return its manifest, as `curate filter` does.

    Args:
        pool, out, cache: folders or URLs; `{date}` and `{time}` in them are those that the run was scheduled for.
        history: folder of earlier runs to compare with, and to add this one to; none: nothing is compared.
        drift: from where on a difference is an alarm.
        stage_timeout: seconds that each try of a stage may take.
        after: folder or URL that remembers earlier pools: this one is compared with them, and remembered too.
    """
    pool, out, cache = dated(pool), dated(out), dated(cache) if cache else None
    target = Folder(out)
    running, stage = open_engine(engine, workers), staged(stage_timeout)
    source, asked = open_pool(pool, cache), load_recipe(recipe, tuple(changes))
    try:
        with alone(out), alone(after) if after else nullcontext():
            if any(feature.name == "bootstrap" for feature in asked.features):
                from flows.bootstrap import with_scorer  # loads torch

                chosen = stage("scorer", lambda: with_scorer(asked, source, running))
            else:
                chosen = asked
            counted = metrics.dataset_at(target)
            manifest = curate_pool(
                source,
                chosen,
                target,
                running,
                samples_per_shard=samples_per_shard,
                overwrite=overwrite,
                stage=stage,
                after=after,
            )
    finally:
        running.close()
    counted(manifest)
    publish(target, manifest)
    if history is not None:
        past = Folder(history)
        seen = pool_of(manifest) if "recaption" in manifest else source
        stage("drift", lambda: watch_drift(past, manifest, target, seen, drift))
    return manifest


def publish(out: Folder, manifest: dict[str, Any]) -> None:
    """Show the funnel and the report among the run's artifacts."""
    create_markdown_artifact(summary(manifest, out.url), key="summary")
    create_table_artifact(manifest["funnel"], key="funnel", description=f"{manifest['name']}: {out.url}")
    report = Path(out.path(REPORT)).resolve().as_uri() if out.is_local else f"{out.url}/{REPORT}"
    create_link_artifact(report, key="report", link_text=f"Report of {out.url}", description=f"{out.url}/{MANIFEST}")


def summary(manifest: dict[str, Any], out: str) -> str:
    """A run on a screen, as Markdown: what was kept, what dropped most, where the time went, what was warned of."""
    chosen, measured = manifest["selection"], manifest["measure"]
    share = chosen["kept"] / max(1, chosen["rows"])
    lines = [f"# `{manifest['name']}` kept {chosen['kept']:,} of {chosen['rows']:,} samples ({share:.1%})", ""]
    dropped = sorted((step for step in manifest["funnel"] if step["dropped"]), key=lambda step: -step["dropped"])
    lines += [f"- {step['filter']} dropped {step['dropped']:,} of {step['in']:,}" for step in dropped[:5]]
    seconds = ", ".join(f"{stage} {spent:,.0f} s" for stage, spent in manifest["seconds"].items())
    lines += [f"- {seconds}; {measured['samples_measured']:,} samples measured, the rest from the cache"]
    lines += [f"- **{warning}**" for warning in manifest["warnings"]]
    return "\n".join([*lines, "", f"`{out}`, recipe `{manifest['recipe_hash']}`", ""])
