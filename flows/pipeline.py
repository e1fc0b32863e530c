"""The whole as one Prefect flow: acquire, recaption if asked, curate, and prove where an experiment is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from prefect import flow

from curate.drift import Bounds
from curate.recaption.settings import load_settings
from curate.write import SHARDS
from flows.acquire import POOL, acquire
from flows.curation import curation
from flows.experiment import load_experiment
from flows.notify import HOOKS
from flows.recaption import recaption as recaptioning
from flows.stages import dated

DATASET, RECAPTIONED, ABLATION, EXPERIMENT = "dataset", "recaptioned", "ablation", "experiment.yaml"


@flow(name="pipeline", **HOOKS)
def pipeline(
    sources: Sequence[str],
    folder: str,
    recipe: str | None = None,
    changes: Sequence[str] = (),
    experiment: str | None = None,
    crawling: dict[str, Any] | None = None,
    downloading: dict[str, Any] | None = None,
    allow_private: bool = False,
    engine: str = "local",
    workers: int | None = None,
    history: str | None = None,
    drift: Bounds | None = None,
    stage_timeout: float | None = None,
    after: str | None = None,
    recaption: str | None = None,
) -> dict[str, Any]:
    """Acquire into `folder`, curate its pool into `folder/dataset`, and run an experiment on the pool, if one is given.

    Args:
        folder: a local folder; `{date}` and `{time}` in it are those that the run was scheduled for.
        experiment: a file as `curate ablate` takes it; its `pool` becomes the one acquired.
        history: folder of earlier runs, for drift and the trend of accuracies.
        stage_timeout: seconds that each try of a stage of acquisition and curation may take.
        after: folder or URL that remembers the pools of earlier nights, which this one is compared with.
        recaption: a file as `curate recaption` takes it: what is acquired gets new captions first, in
            `folder/recaptioned`, which is then curated and experimented on.

    Returns:
        What `acquire` and `curation` return, and of the experiment its verdicts and where its report is.
    """
    target = dated(folder)
    if experiment is not None:
        load_experiment(experiment)  # a wrong one should not have to wait for a crawl
    if recaption is not None:
        load_settings(recaption)
    acquired = acquire(sources, target, crawling, downloading, allow_private, stage_timeout)
    pool, found = f"{target}/{POOL}", dict[str, Any](acquire=acquired)
    if recaption is not None:
        found["recaption"] = recaptioning(
            pool=pool, out=f"{target}/{RECAPTIONED}", settings=recaption, workers=workers, overwrite=True,
            stage_timeout=stage_timeout,
        )  # fmt: skip
        pool = f"{target}/{RECAPTIONED}/{SHARDS}"
    found["manifest"] = curation(
        pool=pool, out=f"{target}/{DATASET}", recipe=recipe, changes=changes, engine=engine,
        workers=workers, overwrite=True, history=history, drift=drift, stage_timeout=stage_timeout,
        after=after,
    )  # fmt: skip
    if experiment is not None:
        found["ablation"] = _prove(experiment, target, pool, engine, workers, history)
    return found


def _prove(
    experiment: str, folder: str, pool: str, engine: str, workers: int | None, history: str | None
) -> dict[str, Any]:
    from flows.ablation import REPORT, ablation  # loads torch

    out = f"{folder}/{ABLATION}"
    result = ablation(experiment_on(experiment, folder, pool), out, engine=engine, workers=workers, history=history)
    return {"verdicts": result["verdicts"], "report": f"{out}/{REPORT}"}


def experiment_on(experiment: str, folder: str, pool: str | None = None) -> str:
    """Write the experiment into `folder`, with a pool that was made there; the path of its file."""
    asked = load_experiment(experiment).model_copy(update={"pool": pool or f"{folder}/{POOL}", "cache": None})
    file = Path(folder) / EXPERIMENT
    file.write_text(yaml.safe_dump(asked.model_dump(mode="json"), sort_keys=False))
    return str(file)
