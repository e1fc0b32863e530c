"""Zero-shot classification: an image belongs to the class whose captions' mean embedding is nearest.

The layout is that of CLIP_benchmark and DataComp's evaluation sets: `classnames.txt`,
`zeroshot_classification_templates.txt` (a sentence per line, `{c}` stands for the class) and `test/*.tar`,
whose samples hold an image and its class index as `.cls`.

A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, section 3.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import fsspec
import numpy as np
import torch

from trainer.family import VisionLanguageModel
from trainer.shards import BadSampleError
from trainer.tasks._items import Item, prepared
from trainer.tasks.contract import TaskResult, batched, result
from trainer.tasks.write import CLASSNAMES, TEMPLATES

KIND = "zero_shot_classification"


@dataclass
class Classified:
    """Items in order: their keys, classes and predicted classes as indices, and what else was asked about them."""

    keys: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    predictions: list[int] = field(default_factory=list)
    about: list[Any] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def run(folder: str, model: VisionLanguageModel, batch_size: int) -> TaskResult:
    """Classify every item: accuracy, and its mean over the classes that have items."""
    found = classify(folder, model, batch_size)
    return score(folder, found.keys, np.array(found.labels), np.array(found.predictions), found.skipped)


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


def classify(
    folder: str, model: VisionLanguageModel, batch_size: int, about: Callable[[Item], Any] = lambda item: None
) -> Classified:
    """Classify every item of a folder of this layout.

    Args:
        about: what else to keep of an item; raises BadSampleError where the item lacks it.

    Raises:
        ValueError: the folder is not in this layout.
    """
    classnames, templates = _lines(folder, CLASSNAMES), _lines(folder, TEMPLATES)
    if unusable := [t for t in templates if "{c}" not in t]:
        raise ValueError(f"{folder}/{TEMPLATES}: {unusable[0]!r} has no {{c}}")
    classes = class_embeddings(model, classnames, templates) if model.embeds else None

    def prepare(item: Item) -> tuple[torch.Tensor, int, Any]:
        return model.preprocess(item.image()), label_of(item, classnames), about(item)

    found = Classified()
    for batch in batched(prepared(folder, prepare, found.skipped), batch_size):
        images = torch.stack([image for _, (image, _, _) in batch]).to(model.device)
        if classes is None:  # each template costs a pass per class and image: the first one has to do
            scores = model.match(images, [templates[0].replace("{c}", name) for name in classnames])
        else:
            scores = model.embed_images(images) @ classes.T
        found.predictions += scores.argmax(1).tolist()
        for key, (_, label, more) in batch:
            found.keys.append(key)
            found.labels.append(label)
            found.about.append(more)
    return found


def label_of(item: Item, classnames: Sequence[str]) -> int:
    """The index of the item's class, which it gives as a number or by its name.

    Raises:
        BadSampleError: it does not, or there is no such class.
    """
    label = item.fields.get("label")
    if not isinstance(label, (str, int)) or isinstance(label, bool):
        raise BadSampleError("no class")
    try:
        index = int(label)
    except ValueError as wrong:
        if label in classnames:
            return classnames.index(str(label))
        raise BadSampleError("no class") from wrong
    if not 0 <= index < len(classnames):
        raise BadSampleError("class without a name")
    return index


def class_embeddings(model: VisionLanguageModel, classnames: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """float32 (classes, D), unit length: the mean over the templates of their unit-length text features."""
    rows = [model.embed_texts([t.replace("{c}", name) for t in templates]).mean(0) for name in classnames]
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def _lines(folder: str, name: str) -> list[str]:
    fs, path = fsspec.url_to_fs(f"{folder.rstrip('/')}/{name}")
    if not fs.isfile(path):
        raise ValueError(f"task: {folder} has no {name}")
    lines = [line.strip() for line in fs.cat_file(path).decode().splitlines()]
    if not (lines := [line for line in lines if line]):
        raise ValueError(f"task: {folder}/{name} is empty")
    return lines
