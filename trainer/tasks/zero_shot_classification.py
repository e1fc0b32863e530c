"""Zero-shot classification: an image belongs to the class whose captions' mean embedding is nearest.

The layout is that of CLIP_benchmark and DataComp's evaluation sets: `classnames.txt`,
`zeroshot_classification_templates.txt` (a sentence per line, `{c}` stands for the class) and `test/*.tar`,
whose samples hold an image and its class index as `.cls`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import fsspec
import numpy as np
import torch

from trainer.data import map_in_order
from trainer.images import open_image
from trainer.model import Tokenizer
from trainer.shards import BadSampleError, Sample, list_shards, read_samples
from trainer.stats import wilson_interval
from trainer.tasks.write import CLASSNAMES, TEMPLATES

KIND = "zero_shot_classification"


@dataclass(frozen=True)
class TaskResult:
    """How a model did on one task. Accuracies and interval bounds are shares, 0..1."""

    task: str  # the folder's name
    kind: str
    items: int
    accuracy: float
    low: float  # 95 % Wilson interval of the accuracy: what other items of the same sort might have given
    high: float
    mean_per_class: float  # mean over the classes that have items
    skipped: dict[str, int]  # unreadable items by reason
    keys: list[str]  # of the items, in the order of `correct`
    correct: str  # one character per item: 1 right, 0 wrong

    @property
    def outcomes(self) -> np.ndarray:
        """`correct` as int8 (items,), for paired tests."""
        return np.frombuffer(self.correct.encode(), dtype=np.int8) - ord("0")


def run_task(
    folder: str, model: Any, preprocess: Any, tokenizer: Tokenizer, device: torch.device, batch_size: int
) -> TaskResult:
    """Classifies every item of the task.

    Raises:
        ValueError: the folder is not such a task, or no item is readable.
    """
    classnames, templates = _lines(folder, CLASSNAMES), _lines(folder, TEMPLATES)
    if unusable := [t for t in templates if "{c}" not in t]:
        raise ValueError(f"{folder}/{TEMPLATES}: {unusable[0]!r} has no {{c}}")
    classes = class_embeddings(model, tokenizer, classnames, templates, device)
    keys, labels, predictions = list[str](), list[int](), list[int]()
    skipped: Counter[str] = Counter()
    for batch in _batches(_items(folder, len(classnames), preprocess, skipped), batch_size):
        images = torch.stack([image for _, image, _ in batch]).to(device, memory_format=torch.channels_last)
        with torch.inference_mode():
            scores = model.encode_image(images, normalize=True).float() @ classes.T
        predictions += scores.argmax(1).tolist()
        keys += [key for key, _, _ in batch]
        labels += [label for _, _, label in batch]
    if not keys:
        raise ValueError(f"{folder}: no readable item (skipped: {dict(skipped)})")
    return score(folder.rstrip("/").rsplit("/", 1)[-1], keys, np.array(labels), np.array(predictions), skipped)


def score(task: str, keys: list[str], labels: np.ndarray, predictions: np.ndarray, skipped: Counter[str]) -> TaskResult:
    """The result for labels and predictions, both int (items,)."""
    correct = labels == predictions
    low, high = wilson_interval(int(correct.sum()), len(correct))
    per_class = np.bincount(labels, weights=correct)[np.unique(labels)] / np.bincount(labels)[np.unique(labels)]
    return TaskResult(
        task=task,
        kind=KIND,
        items=len(labels),
        accuracy=float(correct.mean()),
        low=low,
        high=high,
        mean_per_class=float(per_class.mean()),
        skipped=dict(sorted(skipped.items())),
        keys=keys,
        correct="".join("01"[int(c)] for c in correct),
    )


def class_embeddings(
    model: Any, tokenizer: Tokenizer, classnames: list[str], templates: list[str], device: torch.device
) -> torch.Tensor:
    """float32 (classes, D), unit length: the mean over the templates of their unit-length text features."""
    rows = list[torch.Tensor]()
    with torch.inference_mode():
        for name in classnames:
            tokens = tokenizer([template.replace("{c}", name) for template in templates]).to(device)
            rows.append(model.encode_text(tokens, normalize=True).float().mean(0))
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def _items(
    folder: str, classes: int, preprocess: Any, skipped: Counter[str]
) -> Iterator[tuple[str, torch.Tensor, int]]:
    shards = list_shards(f"{folder.rstrip('/')}/test")
    samples = (sample for shard in shards for sample in read_samples(shard, skipped))
    for sample, item in map_in_order(partial(_prepare, classes=classes, preprocess=preprocess), samples):
        if isinstance(item, str):
            skipped[item] += 1
        else:
            yield sample.key, *item


def _prepare(sample: Sample, classes: int, preprocess: Any) -> tuple[torch.Tensor, int] | str:
    try:
        label = int(sample.members["cls"])
        if not 0 <= label < classes:
            return "class without a name"
        return preprocess(open_image(sample.image)), label
    except BadSampleError as bad:
        return str(bad)
    except (KeyError, ValueError):
        return "no class"


def _batches(
    items: Iterator[tuple[str, torch.Tensor, int]], size: int
) -> Iterator[list[tuple[str, torch.Tensor, int]]]:
    batch = list[tuple[str, torch.Tensor, int]]()
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _lines(folder: str, name: str) -> list[str]:
    fs, path = fsspec.url_to_fs(f"{folder.rstrip('/')}/{name}")
    if not fs.isfile(path):
        raise ValueError(f"task: {folder} has no {name}")
    lines = [line.strip() for line in fs.cat_file(path).decode().splitlines()]
    if not (lines := [line for line in lines if line]):
        raise ValueError(f"task: {folder}/{name} is empty")
    return lines
