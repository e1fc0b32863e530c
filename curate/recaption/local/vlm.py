"""A vision-language model of Hugging Face's transformers: loaded safely, asked in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate.recaption.contract import Request
from curate.recaption.local.choose import choose, uniforms

_LARGEST = 4096  # pixels: an image processor that names no side gets images of up to this one


@dataclass(frozen=True)
class Vlm:
    """A model with its processor. `chat` says whether prompts are put as a user's message, by the model's template."""

    model: Any
    processor: Any
    chat: bool

    @property
    def side(self) -> int:
        """The shorter side, in pixels, that an image should not be decoded below."""
        found = getattr(getattr(self.processor, "image_processor", None), "size", None)
        sides = [found] if isinstance(found, int) else list(dict(found).values()) if found else []
        return max((side for side in sides if isinstance(side, int)), default=_LARGEST)

    def text(self, prompt: str) -> str:
        """A prompt as the model reads it."""
        if not self.chat:
            return prompt
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        said: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return said

    def inputs(self, rows: int, requests: Sequence[Request], images: Sequence[Any]) -> Any:
        """What the model takes of requests with the same prompt, filled up to `rows` rows with the last of them."""
        padded = [*images, *[images[-1]] * (rows - len(images))]
        texts = [self.text(requests[0].prompt)] * rows
        return self.processor(images=padded, text=texts, return_tensors="pt", padding=True)

    def generate(
        self, inputs: Any, requests: Sequence[Request], most: int, temperature: float, top_p: float
    ) -> list[tuple[str, int, int]]:
        """The caption of each request, the tokens that were read and those that were written.

        Args:
            inputs: of `inputs`; the rows of the requests come first.
            most: new tokens.
        """
        import torch

        inputs = inputs.to(self.model.device)
        for name, value in inputs.items():
            if value.is_floating_point():
                inputs[name] = value.to(self.model.dtype)
        rows = len(next(iter(inputs.values())))
        drawn = np.zeros((rows, most + 1))
        if temperature:
            drawn[: len(requests)] = uniforms(requests, most + 1)
        chooses = _Chooses(torch.from_numpy(drawn).to(self.model.device), temperature, top_p)
        with torch.inference_mode():
            out = self.model.generate(
                **inputs,
                max_new_tokens=most,
                do_sample=False,
                num_beams=1,
                logits_processor=[chooses] if temperature else None,
            )
        return self._said(inputs, out, len(requests), chooses.ends(self.model.generation_config))

    def _said(self, inputs: Any, out: Any, count: int, ends: set[int]) -> list[tuple[str, int, int]]:
        """The texts of the first `count` rows, without the prompt where it was a message."""
        import torch

        asked = inputs.get("input_ids")
        length = 0 if asked is None else asked.shape[1]
        echoed = bool(length) and out.shape[1] >= length and torch.equal(out[:, :length], asked)
        new = out[:, length:] if echoed else out
        texts = self.processor.batch_decode(new if self.chat else out, skip_special_tokens=True)
        read = [0] * len(out) if asked is None else inputs["attention_mask"].sum(1).tolist()
        written = [next((n + 1 for n, token in enumerate(row) if token in ends), len(row)) for row in new.tolist()]
        return list(zip((" ".join(text.split()) for text in texts[:count]), read, written, strict=False))


class _Chooses:
    """Takes over the choice of a token from transformers, whose draws would depend on the whole batch."""

    def __init__(self, drawn: Any, temperature: float, top_p: float):
        self.drawn, self.temperature, self.top_p, self.place = drawn, temperature, top_p, 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        chosen = choose(scores, self.drawn[:, self.place], self.temperature, self.top_p)
        self.place += 1
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)

    @staticmethod
    def ends(config: Any) -> set[int]:
        """The tokens that end a text."""
        found = config.eos_token_id
        return set(found if isinstance(found, list) else [found])


def load(model: str, revision: str | None, precision: str, device: str | None) -> Vlm:
    """The model of a folder or of the hub, in evaluation mode. Safetensors only, and no code that comes with it is run.

    Raises:
        OSError, ValueError, KeyError: there is none, or it is none that reads images and writes text.
        ImportError: transformers, or what the model needs, is not installed.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    kind = kinds["bf16" if where.type == "cuda" else "fp32"] if precision == "auto" else kinds[precision]
    safe: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    processor = transformers.AutoProcessor.from_pretrained(model, **safe)
    found: Any = transformers.AutoModelForImageTextToText.from_pretrained(
        model, dtype=kind, use_safetensors=True, **safe
    )
    if (tokenizer := getattr(processor, "tokenizer", None)) is None:
        raise ValueError("its processor has no tokenizer")
    tokenizer.padding_side = "left"  # what is written follows what was asked
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Vlm(found.to(where).eval(), processor, bool(getattr(processor, "chat_template", None)))


def version(model: str, revision: str | None) -> str:
    """What tells the weights apart: SHA-256 of a folder's files, or the commit of the hub's repository.

    Raises:
        OSError: there is no such model, or the hub cannot be reached and no copy is here.
    """
    import hashlib

    from curate.hashing import file_sha256

    if Path(model).is_dir():
        files = sorted(
            f for f in Path(model).iterdir() if f.suffix in {".json", ".safetensors", ".txt", ".model", ".jinja"}
        )
        return hashlib.sha256("".join(f.name + file_sha256(f) for f in files).encode()).hexdigest()
    from transformers.utils import cached_file

    found = cached_file(model, "config.json", revision=revision)
    assert found is not None  # it raises where there is none
    return Path(found).parent.name
