"""Objects in written captions: which of those named are there, and which of those there are named?

Items hold an image and the `objects` in it; `task.json` holds the known `objects`, each with its other names:
`{"car": ["automobile"], "hot dog": []}`. A caption names an object by any of its names, whole words, singular or
plural; the longest name counts, so a hot dog is no dog.

A. Rohrbach et al., "Object Hallucination in Image Captioning" (CHAIR), EMNLP 2018, section 2.1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trainer.family import VisionLanguageModel
from trainer.shards import BadSampleError
from trainer.tasks._items import Item, prepared
from trainer.tasks.contract import TaskResult, batched, read_settings, result

KIND = "caption_hallucination"
MAX_TOKENS = 32


def run(folder: str, model: VisionLanguageModel, batch_size: int) -> TaskResult:
    """The mean recall of the objects that are there, with CHAIR: `chair_i`, the share of the objects named that are not
    there, and `chair_s`, the share of captions that name such a one; lower is better. `task.json` may hold a `prompt`.
    """
    settings = read_settings(folder)
    names = Names.read(folder, settings)
    skipped: Counter[str] = Counter()

    def prepare(item: Item) -> tuple[torch.Tensor, set[str]]:
        there = {names.object_of.get(thing.lower()) for thing in item.texts("objects")}
        if None in there:
            raise BadSampleError("object without a name in task.json")
        return model.preprocess(item.image()), {thing for thing in there if thing}

    keys, recalls, named, wrong = list[str](), list[float](), list[int](), list[int]()
    for batch in batched(prepared(folder, prepare, skipped), batch_size):
        images = torch.stack([image for _, (image, _) in batch]).to(model.device)
        captions = model.generate(images, [str(settings.get("prompt", ""))] * len(batch), MAX_TOKENS)
        for (key, (_, there)), caption in zip(batch, captions, strict=True):
            found = names.in_caption(caption)
            keys.append(key)
            recalls.append(len(found & there) / len(there))
            named.append(len(found))
            wrong.append(len(found - there))
    if not keys:
        return result(folder, KIND, "object_recall", [], [], skipped)
    more = {"chair_i": sum(wrong) / max(1, sum(named)), "chair_s": sum(map(bool, wrong)) / len(wrong)}
    more["objects_named"] = sum(named) / len(named)
    return result(folder, KIND, "object_recall", keys, recalls, skipped, more, numbers=["objects_named"])


class Names:
    """The names of objects, and how to find them in a text."""

    def __init__(self, objects: Mapping[str, Sequence[str]]):
        self.object_of = {name.lower(): thing for thing, others in objects.items() for name in (thing, *others)}
        plurals = {plural: thing for name, thing in self.object_of.items() for plural in _plurals(name)}
        self._found = plurals | self.object_of
        longest_first = sorted(self._found, key=len, reverse=True)
        self._pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b")

    @classmethod
    def read(cls, folder: str, settings: Mapping[str, Any]) -> Names:
        """Raises ValueError where `task.json` has no such list."""
        objects = settings.get("objects")
        if isinstance(objects, list):
            objects = {thing: [] for thing in objects if isinstance(thing, str)}
        if not isinstance(objects, dict) or not objects or not all(
            thing and isinstance(others, list) and all(isinstance(one, str) and one for one in others)
            for thing, others in objects.items()
        ):  # fmt: skip
            raise ValueError(f"task: {folder}/task.json: objects must map each object to a list of its other names")
        return cls(objects)

    def in_caption(self, caption: str) -> set[str]:
        """The objects that a caption names."""
        return {self._found[name] for name in self._pattern.findall(" ".join(caption.lower().split()))}


def _plurals(name: str) -> list[str]:
    if re.search(r"[^aeiou]y$", name):
        return [f"{name[:-1]}ies"]
    return [f"{name}es"] if re.search(r"(s|x|z|ch|sh)$", name) else [f"{name}s"]
