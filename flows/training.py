"""Trainings of an experiment: each set of samples once per seed, evaluated, and never done twice."""

from __future__ import annotations

import contextvars
import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from curate import metrics
from curate.curation import Stage
from curate.errors import RequestError, WorkError
from curate.hashing import facts_hash
from trainer.evaluate import evaluate
from trainer.family import Family, get_family
from trainer.run import TrainResult, read_result, write_json
from trainer.scales import Scale, get_scale
from trainer.tasks.contract import TaskResult
from trainer.train import train

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Setup:
    """What all trainings of an experiment share: equal compute is here."""

    family: Family
    scale: Scale
    tasks: tuple[str, ...]
    tasks_key: str
    """Changes when a task does."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A training: which samples, how many are seen, which seed. `content` tells sets of samples apart."""

    content: str
    shards: str
    samples_seen: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model and how it did on each task, by the task's name."""

    result: TrainResult
    evaluation: Mapping[str, TaskResult]
    cached: bool
    """It was trained and evaluated before."""


def make_setup(
    family: str | dict[str, Any], scale: str | dict[str, Any], tasks: Sequence[str], tasks_key: str
) -> Setup:
    """Check what an experiment says of its trainings.

    Raises:
        RequestError: the family or the scale is wrong; names the field.
    """
    try:
        chosen = get_family(family)
        if isinstance(scale, dict):
            fields = dict(scale)
            base = get_scale(fields.pop("name", "tiny"))
            known = {field.name for field in dataclasses.fields(Scale)}
            if unknown := sorted(fields.keys() - known):
                raise ValueError(f"scale: no field {unknown[0]!r}; there are {', '.join(sorted(known))}")
            return Setup(chosen, dataclasses.replace(base, **fields), tuple(tasks), tasks_key)
        return Setup(chosen, get_scale(scale), tuple(tasks), tasks_key)
    except (ValueError, TypeError) as wrong:
        raise RequestError(f"experiment: {wrong}") from wrong


def train_all(jobs: Sequence[Job], setup: Setup, out: Path, devices: Sequence[str], stage: Stage) -> dict[Job, Trained]:
    """Train and evaluate each job under `out`; several at a time where there are several devices.

    Args:
        devices: one process trains on each; empty: this process trains, on the GPU if there is one.

    Raises:
        RequestError: the trainer refuses the request.
        WorkError: a training diverged.
    """
    jobs = list(dict.fromkeys(jobs))
    if len(devices) < 2:
        device = devices[0] if devices else None
        return {job: _as_stage(stage, job, lambda job=job: do(job, setup, out, device)) for job in jobs}
    with (
        ProcessPoolExecutor(
            len(devices), get_context("spawn"), initializer=_share_cores, initargs=(len(devices),)
        ) as processes,
        ThreadPoolExecutor(len(devices)) as threads,
    ):
        free = list(devices)

        def remotely(job: Job) -> Trained:
            device = free.pop()
            try:
                return processes.submit(do, job, setup, out, device).result()
            finally:
                free.append(device)

        def start(job: Job) -> Any:  # Prefect knows the flow by context, which a new thread does not have
            context = contextvars.copy_context()
            return threads.submit(context.run, _as_stage, stage, job, lambda: remotely(job))

        waiting = {job: start(job) for job in jobs}
        return {job: future.result() for job, future in waiting.items()}


def _share_cores(processes: int) -> None:
    """Threads for this process' part of the cores: more of them wait for each other."""
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def _as_stage(stage: Stage, job: Job, work: Any) -> Trained:
    done: Trained = stage(f"train {job.content} seed {job.seed}", work)
    if not done.cached:
        one = done.result
        metrics.trained(one.samples_seen, one.seconds, one.samples_per_second, one.loss, one.device)
    return done


def do(job: Job, setup: Setup, out: Path, device: str | None = None) -> Trained:
    """Train and evaluate a job, or read what is there of it."""
    scale = dataclasses.replace(setup.scale, samples_seen=job.samples_seen)
    facts = [setup.family.as_dict(), setup.family.configure(scale).as_dict()]
    folder = out / f"{job.content}-{facts_hash(facts)}-{job.seed}"
    done = folder / f"evaluation-{setup.tasks_key}.json"
    if done.is_file() and (result := read_result(folder)):
        return Trained(result, _read_evaluation(done), cached=True)
    try:
        result = train(job.shards, folder, scale=scale, family=setup.family, seed=job.seed, device=device)
        found = evaluate(folder, setup.tasks, device=device)
    except ValueError as wrong:
        raise RequestError(f"experiment: {wrong}") from wrong
    except FloatingPointError as failed:
        raise WorkError(f"{folder.name}: {failed}") from failed
    write_json(done, [dataclasses.asdict(one) for one in found])
    for one in found:
        log.info("%s: %s %.3f on %s", folder.name, one.metric, one.value, one.task)
    return Trained(result, {one.task: one for one in found}, cached=False)


def _read_evaluation(file: Path) -> dict[str, TaskResult]:
    return {raw["task"]: TaskResult(**raw) for raw in json.loads(file.read_text())}
