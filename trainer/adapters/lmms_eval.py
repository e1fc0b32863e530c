"""A checkpoint of ours as a model of lmms-eval, by its interface `lmms` ("simple" models, version 0.7).

    lmms_eval --model curate --model_args pretrained=RUNS/OUT --tasks pope,mmmu_val --batch_size 32

This file needs lmms-eval, and only lmms-eval imports it. Its chat templates and system prompts are for models that were
trained on chats, so none is added.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lmms_eval.api.model import lmms
from PIL import Image

from trainer.checkpoint import load_checkpoint
from trainer.tasks.contract import batched

MAX_TOKENS = 64
_MARKER = re.compile(r"<image(?: \d+)?>\s*")


class CurateModel(lmms):
    """Answers with `VisionLanguageModel.generate` and judges texts with `match_pairs`."""

    def __init__(self, pretrained: str, batch_size: int | str = 32, device: str | None = None, **unused: Any) -> None:
        """Load a checkpoint, or that of a training's OUT.

        Args:
            unused: what the command passes to every model, such as `max_batch_size`.
        """
        super().__init__()
        self.asked = load_checkpoint(pretrained, device)
        self.batch_size = int(batch_size) if str(batch_size).isdigit() else 32

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """What the model writes after each request's context, up to the first of its `until` texts."""
        answers = list[str]()
        for batch in batched(iter(requests), self.batch_size):
            arguments = [request.args for request in batch]
            images = self._images((visual, place) for _, _, visual, *place in arguments)
            options = [given for _, given, *_ in arguments]
            prompts = [_MARKER.sub("", context).strip() for context, *_ in arguments]
            written = self.asked.generate(
                images, prompts, max(int(given.get("max_new_tokens") or MAX_TOKENS) for given in options)
            )
            answers += [_cut(text, given.get("until")) for text, given in zip(written, options, strict=True)]
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """How well each continuation fits its image, and whether it would be written: which is not worked out.

        It is what the family's `match_pairs` gives, a likelihood or a cosine, which can be compared among the
        continuations of one image, as tasks do, and means nothing beyond.
        """
        fits = list[tuple[float, bool]]()
        for batch in batched(iter(requests), self.batch_size):
            arguments = [request.args for request in batch]
            images = self._images((visual, place) for _, _, visual, *place in arguments)
            texts = [
                f"{_MARKER.sub('', context)} {self._target(target, place)}".strip()
                for context, target, _, *place in arguments
            ]
            fits += [(float(value), False) for value in self.asked.match_pairs(images, texts)]
        return fits

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Raises NotImplementedError: none of our families holds a conversation."""
        raise NotImplementedError("curate's models answer once; tasks of several rounds cannot be evaluated")

    def _images(self, visuals: Iterable[tuple[Any, Sequence[Any]]]) -> torch.Tensor:
        """The first image of each request, preprocessed: our families see one at a time."""
        images = []
        for visual, place in visuals:
            found = visual(self._document(place))
            if not found or not isinstance(found[0], Image.Image):
                raise ValueError("curate's models need an image with each request, and this task has one without")
            images.append(self.asked.preprocess(found[0].convert("RGB")))
        return torch.stack(images).to(self.asked.device)

    def _target(self, target: Any, place: Sequence[Any]) -> str:
        return str(target(self._document(place)) if callable(target) else target).strip()

    def _document(self, place: Sequence[Any]) -> Any:
        number, task, split = place
        return self.task_dict[task][split][number]


def _cut(text: str, until: str | Sequence[str] | None) -> str:
    """The text before the first of the `until` texts."""
    ends = [until] if isinstance(until, str) else until or []
    return min((text.split(end, 1)[0] for end in ends if end), key=len, default=text).strip()
