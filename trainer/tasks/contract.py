"""What an evaluation task gives, and how its folder says which one it is.

A task is a folder (or fsspec URL). `task.json` holds its `kind`, the name of a file of `trainer/tasks/`, and what else
that kind asks for; a folder without it that has `classnames.txt` is a zero-shot classification.
"""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import fsspec
import numpy as np
from scipy import stats

from trainer.family import VisionLanguageModel
from trainer.stats import wilson_interval

TASK = "task.json"
T = TypeVar("T")


@dataclass(frozen=True)
class TaskResult:
    """How a model did on one task. The main metric is the mean of `scores`, so that two models can be compared item
    by item.
    """

    task: str  # the folder's name
    kind: str
    items: int
    metric: str  # the name of the main metric
    value: float  # the mean of `scores`
    low: float  # 95 % interval of the value: what other items of the same sort might have given
    high: float
    metrics: dict[str, float]  # all of them, the main one too
    skipped: dict[str, int]  # unreadable items by reason
    keys: list[str]  # of the items
    scores: list[float]  # of the items, in the order of `keys`; 0 or 1 where an item is right or wrong
    numbers: list[str] = field(default_factory=list)  # the metrics that are no shares of 1, such as CIDEr

    @property
    def outcomes(self) -> np.ndarray:
        """`scores` as float32 (items,), for paired tests."""
        return np.array(self.scores, np.float32)


class Task(Protocol):
    """What each file of `trainer/tasks/` that is a kind of task has."""

    def run(self, folder: str, model: VisionLanguageModel, batch_size: int) -> TaskResult:
        """Raises ValueError where the folder is not such a task, no item is readable, or the model cannot do it."""


def result(
    folder: str,
    kind: str,
    metric: str,
    keys: Sequence[str],
    scores: Sequence[float] | np.ndarray,
    skipped: Mapping[str, int],
    more: Mapping[str, float] | None = None,
    *,
    interval: tuple[float, float] | None = None,
    numbers: Sequence[str] = (),
) -> TaskResult:
    """The result of items' scores; `more` are metrics beside the main one, `numbers` those that are no shares.

    Unless given, the interval is Wilson's where every score is 0 or 1, else that of the mean by Student's t.

    Raises:
        ValueError: there is no item.
    """
    if len(keys) == 0:
        raise ValueError(f"{folder}: no readable item (skipped: {dict(skipped)})")
    values = np.asarray(scores, np.float64)
    mean = float(values.mean())
    if interval:
        low, high = interval
    elif np.isin(values, (0, 1)).all():
        low, high = wilson_interval(int(values.sum()), len(values))
    elif len(values) == 1:
        low, high = -math.inf, math.inf
    else:
        half = float(values.std(ddof=1) / math.sqrt(len(values)) * stats.t.ppf(0.975, len(values) - 1))
        low, high = mean - half, mean + half
    return TaskResult(
        task=folder.rstrip("/").rsplit("/", 1)[-1],
        kind=kind,
        items=len(keys),
        metric=metric,
        value=mean,
        low=low,
        high=high,
        metrics={metric: mean, **(more or {})},
        skipped=dict(sorted(Counter(skipped).items())),
        keys=list(keys),
        scores=[float(value) for value in values],
        numbers=[name for name in numbers if name == metric or name in (more or {})],
    )


def task_kinds() -> list[str]:
    """The kinds that there are: the files of `trainer/tasks/` with a `run`."""
    import trainer.tasks

    found = (module.name for module in pkgutil.iter_modules(trainer.tasks.__path__) if module.name[0] != "_")
    return sorted(name for name in found if hasattr(importlib.import_module(f"trainer.tasks.{name}"), "run"))


def read_settings(folder: str) -> dict[str, Any]:
    """The folder's `task.json`, with its `kind`.

    Raises:
        ValueError: the folder is no task, or its `task.json` is malformed.
    """
    fs, path = fsspec.url_to_fs(folder.rstrip("/"))
    if not fs.isfile(f"{path}/{TASK}"):
        if fs.isfile(f"{path}/classnames.txt"):
            return {"kind": "zero_shot_classification"}
        raise ValueError(f"task: {folder} holds neither {TASK} nor classnames.txt")
    try:
        settings = json.loads(fs.cat_file(f"{path}/{TASK}"))
        kind = settings["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"task: {folder}/{TASK} is no JSON object with a kind") from error
    if kind not in task_kinds():
        raise ValueError(f"task: {folder}/{TASK}: kind {kind!r} is not one of {', '.join(task_kinds())}")
    return settings


def run_task(folder: str, model: VisionLanguageModel, batch_size: int) -> TaskResult:
    """Do the folder's task, whatever its kind.

    Raises:
        ValueError: the folder is no task, no item of it is readable, or the model's family cannot do it.
    """
    task: Task = importlib.import_module(f"trainer.tasks.{read_settings(folder)['kind']}")
    return task.run(folder, model, batch_size)


def batched(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last one may be shorter."""
    batch = list[T]()
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
