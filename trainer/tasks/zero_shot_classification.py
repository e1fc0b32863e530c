"""Zero-shot classification: an image belongs to the class whose captions' mean embedding is nearest.

The layout is that of CLIP_benchmark and DataComp's evaluation sets: `classnames.txt`,
`zeroshot_classification_templates.txt` (a sentence per line, `{c}` stands for the class) and `test/*.tar`,
whose samples hold an image and its class index as `.cls`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import fsspec
import numpy as np
import torch

from trainer.data import map_in_order
from trainer.family import VisionLanguageModel
from trainer.images import open_image
from trainer.shards import BadSampleError, Sample, list_shards, read_samples
from trainer.tasks.contract import TaskResult, batched, result
from trainer.tasks.write import CLASSNAMES, TEMPLATES

KIND = "zero_shot_classification"


def run(folder: str, model: VisionLanguageModel, batch_size: int) -> TaskResult:
    """Classify every item: accuracy, and its mean over the classes that have items."""
    classnames, templates = _lines(folder, CLASSNAMES), _lines(folder, TEMPLATES)
    if unusable := [t for t in templates if "{c}" not in t]:
        raise ValueError(f"{folder}/{TEMPLATES}: {unusable[0]!r} has no {{c}}")
    classes = class_embeddings(model, classnames, templates) if model.embeds else None
    keys, labels, predictions = list[str](), list[int](), list[int]()
    skipped: Counter[str] = Counter()
    for batch in batched(_items(folder, len(classnames), model.preprocess, skipped), batch_size):
        images = torch.stack([image for _, image, _ in batch]).to(model.device)
        if classes is None:  # each template costs a pass per class and image: the first one has to do
            scores = model.match(images, [templates[0].replace("{c}", name) for name in classnames])
        else:
            scores = model.embed_images(images) @ classes.T
        predictions += scores.argmax(1).tolist()
        keys += [key for key, _, _ in batch]
        labels += [label for _, _, label in batch]
    return score(folder, keys, np.array(labels), np.array(predictions), skipped)


def score(
    folder: str, keys: Sequence[str], labels: np.ndarray, predictions: np.ndarray, skipped: Counter[str]
) -> TaskResult:
    """The result for labels and predictions, both int (items,)."""
    correct = labels == predictions
    more = {}
    if len(keys):
        count = np.bincount(labels)
        more["mean_per_class"] = float((np.bincount(labels, weights=correct)[count > 0] / count[count > 0]).mean())
    return result(folder, KIND, "accuracy", keys, correct, skipped, more)


def class_embeddings(model: VisionLanguageModel, classnames: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """float32 (classes, D), unit length: the mean over the templates of their unit-length text features."""
    rows = [model.embed_texts([t.replace("{c}", name) for t in templates]).mean(0) for name in classnames]
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


def _lines(folder: str, name: str) -> list[str]:
    fs, path = fsspec.url_to_fs(f"{folder.rstrip('/')}/{name}")
    if not fs.isfile(path):
        raise ValueError(f"task: {folder} has no {name}")
    lines = [line.strip() for line in fs.cat_file(path).decode().splitlines()]
    if not (lines := [line for line in lines if line]):
        raise ValueError(f"task: {folder}/{name} is empty")
    return lines
