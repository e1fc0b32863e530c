"""An ablation: arms × seeds at equal compute, every arm clear of the evaluation images, with controls and intervals."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from curate import metrics
from curate.curation import Stage, curate_pool, run_stage
from curate.engines import Engine, open_engine
from curate.errors import RequestError, WorkError
from curate.hashing import facts_hash
from curate.pool import Pool, open_pool
from curate.report.ablation import write_ablation_report
from curate.storage import Folder
from flows.arms import DECONTAMINATION, Arm, plan_arms, random_arms
from flows.bootstrap import with_scorer
from flows.curation import run_as_task
from flows.evaluation_images import image_shards, task_fingerprint
from flows.evidence import Decided, describe
from flows.experiment import NO_FILTER, Experiment, load_experiment
from flows.notify import HOOKS
from flows.stages import alone, dated
from flows.training import Job, Trained, make_setup, train_all
from flows.watch import watch_accuracy

RESULT = "ablation.json"
REPORT = "report.html"
log = logging.getLogger("curate.ablate")


@flow(name="ablation", **HOOKS)
def ablation(
    experiment: str,
    out: str,
    engine: str = "local",
    workers: int | None = None,
    devices: Sequence[str] = (),
    history: str | None = None,
) -> dict[str, Any]:
    """Run an experiment's file under Prefect, as `curate ablate` does, and show what it found among the artifacts.

    Args:
        out: a local folder; `{date}` and `{time}` in it are those that the run was scheduled for.
        history: folder of earlier runs, for the trend of accuracies; none: this one is not added to any.
    """
    target, asked = dated(out), load_experiment(experiment)
    running = open_engine(engine, workers)
    try:
        with alone(target):
            result = ablate(asked, Path(target), running, devices=devices, stage=run_as_task)
    finally:
        running.close()
    _publish(Path(target), result)
    metrics.accuracies(result["name"], result["arms"])
    if history is not None:
        past = Folder(history)
        run_as_task("accuracy", lambda: watch_accuracy(past, target, result))
    return result


def ablate(
    experiment: Experiment, out: Path, engine: Engine, *, devices: Sequence[str] = (), stage: Stage = run_stage
) -> dict[str, Any]:
    """Decide, write, train, evaluate and compare every arm; what is done already under `out` is not done again.

    Arms that come to the same samples share their trainings.

    Returns:
        What `out/ablation.json` holds; docs/ablate.md describes it.

    Raises:
        RequestError: the experiment is wrong; names the field.
        WorkError: an arm keeps nothing, or a training diverged.
    """
    began = time.monotonic()
    pool = open_pool(experiment.pool, experiment.cache)
    if pool.metadata_only:
        raise RequestError("pool: it has no images to train on")
    names = [task.rstrip("/").rsplit("/", 1)[-1] for task in experiment.tasks]
    if len(set(names)) < len(names):
        raise RequestError("tasks: two of them have the same folder name")
    tasks_key = facts_hash([task_fingerprint(task) for task in experiment.tasks])
    setup = make_setup(experiment.family, experiment.scale, experiment.tasks, tasks_key)
    target = Folder(str(out))
    evaluation = [
        image_shards(task, target / f"evaluation/{name}") for task, name in zip(experiment.tasks, names, strict=True)
    ]
    planned = plan_arms(experiment, evaluation)
    decided = [decide_arm(arm, pool, target, engine, stage) for arm in planned]
    whole = next((d.kept for d in decided if d.arm.name == NO_FILTER), 0)
    sizes = {d.arm.name: d.kept for d in decided if d.arm.role == "arm"}
    more = random_arms(sizes, whole, experiment, evaluation)
    decided += [decide_arm(arm, pool, target, engine, stage) for arm in more]
    asked = experiment.samples_seen
    budgets = asked if isinstance(asked, tuple) else (asked or setup.scale.samples_seen,)
    jobs = {
        (d.arm.name, budget): [Job(d.content, f"{d.folder}/shards", budget, seed) for seed in experiment.seed_numbers]
        for d in decided
        for budget in budgets
    }
    done = train_all(_seed_by_seed(jobs), setup, out / "models", devices, stage)
    found = {key: [done[_shared(job, done)] for job in group] for key, group in jobs.items()}
    result = {
        "name": experiment.name,
        "description": experiment.description,
        "experiment": experiment.model_dump(mode="json"),
        **describe(experiment, decided, found, budgets),
        "trained": sum(not one.cached for one in done.values()),
        "from_earlier_runs": sum(one.cached for one in done.values()),
        "notes": _notes(experiment, found),
        "seconds": round(time.monotonic() - began, 1),
    }
    target.write_json(RESULT, result)
    for table in ("arms", "comparisons"):
        target.write_bytes(f"{table}.csv", _csv(result[table]))
    write_ablation_report(target, result)
    return result


def decide_arm(arm: Arm, pool: Pool, out: Folder, engine: Engine, stage: Stage) -> Decided:
    """Curate the pool with the arm's recipe into a dataset of its own, `out/arms/NAME`.

    Raises:
        WorkError: it keeps no sample, or its selection was not cleared of the evaluation images.
    """
    log.info("arm %s", arm.name)
    folder = out / f"arms/{arm.slug}"
    recipe = with_scorer(arm.recipe, pool, engine)
    manifest = curate_pool(pool, recipe, folder, engine, overwrite=True, stage=stage)
    steps = {step["filter"]: step["dropped"] for step in manifest["funnel"]}
    if DECONTAMINATION not in steps:  # the one thing that must never be skipped is checked where it was done
        raise WorkError(f"arm {arm.name}: it was not cleared of the evaluation images, so its accuracy means nothing")
    if not manifest["selection"]["kept"]:
        raise WorkError(f"arm {arm.name}: its recipe keeps no sample; see {folder.url}/report.html")
    content = facts_hash([[shard["name"], shard["digest"]] for shard in manifest["shards"]])
    return Decided(arm, folder.url, manifest["selection"]["kept"], content, steps[DECONTAMINATION])


def _seed_by_seed(jobs: dict[tuple[str, int], list[Job]]) -> list[Job]:
    """Each set of samples once, seed by seed: what an interrupted run has is then a fair comparison too."""
    first: dict[tuple[str, int, int], Job] = {}
    for group in zip(*jobs.values(), strict=True):
        for job in group:
            first.setdefault((job.content, job.samples_seen, job.seed), job)
    return list(first.values())


def _shared(job: Job, done: dict[Job, Trained]) -> Job:
    """The job that was done for this one: that of an arm with the same samples may stand for it."""
    key = (job.content, job.samples_seen, job.seed)
    return next(other for other in done if (other.content, other.samples_seen, other.seed) == key)


def _notes(experiment: Experiment, found: dict[tuple[str, int], list[Trained]]) -> list[str]:
    notes = [
        "Every arm saw as many samples, and was first cleared of images within reach of an evaluation image.",
        "Intervals are of 95 % for each comparison alone; verdicts are corrected for all comparisons together (Holm).",
    ]
    if len(experiment.seed_numbers) == 1:
        notes.append("One seed: how much trainings differ by chance is not known, so nothing is decided.")
    repeats = {name: group[0].result.repeats for (name, _), group in found.items()}
    most, least = max(repeats, key=lambda n: repeats[n]), min(repeats, key=lambda n: repeats[n])
    if repeats[most] > 4 * repeats[least]:
        notes.append(
            f"{most} repeated each sample {repeats[most]:.1f} times, {least} {repeats[least]:.1f} times: at another "
            "number of samples seen, the order may differ."
        )
    return notes


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows with the plain values of each; an interval is two columns."""
    plain = []
    for row in rows:
        low, high = row["interval"] or (None, None)
        values = {name: value for name, value in row.items() if not isinstance(value, (dict, list))}
        plain.append({name: value for name, value in values.items() if name != "interval"} | {"low": low, "high": high})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(plain[0]) if plain else [])
    writer.writeheader()
    writer.writerows(plain)
    return text.getvalue().encode()


def _publish(out: Path, result: dict[str, Any]) -> None:
    lines = "\n".join(f"- {line}" for line in result["verdicts"])
    create_markdown_artifact(f"# {result['name']}\n\n{lines}\n", key="ablation-verdicts")
    table = [{k: arm[k] for k in ("name", "value", "interval", "samples", "repeats")} for arm in result["arms"]]
    create_table_artifact(table, key="ablation-arms", description=result["name"])
    create_link_artifact((out / REPORT).resolve().as_uri(), key="ablation-report", link_text=f"Report of {out}")
