"""A checkpoint of ours as a model of VLMEvalKit, by its `BaseModel`.

    from functools import partial
    from vlmeval.config import supported_VLM
    from trainer.adapters.vlmeval import CurateModel

    supported_VLM["curate"] = partial(CurateModel, pretrained="RUNS/OUT")    # then its run.py with --model curate

This file needs VLMEvalKit, and nothing else of ours imports it.
"""

from __future__ import annotations

from typing import Any

from PIL import Image
from vlmeval.vlm.base import BaseModel

from trainer.checkpoint import load_checkpoint

MAX_TOKENS = 64


class CurateModel(BaseModel):
    """Answers with `VisionLanguageModel.generate`; of several images it sees the first."""

    INTERLEAVE = False

    def __init__(self, pretrained: str, device: str | None = None, max_tokens: int = MAX_TOKENS, **unused: Any) -> None:
        """Load a checkpoint, or that of a training's OUT."""
        super().__init__()
        self.asked = load_checkpoint(pretrained, device)
        self.max_tokens = max_tokens

    def generate_inner(self, message: list[dict[str, str]], dataset: str | None = None) -> str:
        """The answer to a message: parts with `type` "image" (a path) or "text", and their `value`.

        Raises:
            ValueError: there is no image in it.
        """
        paths = [part["value"] for part in message if part["type"] == "image"]
        if not paths:
            raise ValueError("curate's models need an image, and this message has none")
        prompt = "\n".join(part["value"] for part in message if part["type"] == "text")
        with Image.open(paths[0]) as image:
            ready = self.asked.preprocess(image.convert("RGB"))
        return self.asked.generate(ready[None].to(self.asked.device), [prompt], self.max_tokens)[0]
