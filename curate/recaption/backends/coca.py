"""Captions by CoCa through open_clip (Yu et al. 2022, arXiv:2205.01917), on this machine.

The model is a checkpoint of `curate train --family coca`, or any CoCa of open_clip by tag or file.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from curate import openclip
from curate.errors import RequestError
from curate.recaption.contract import Answer, Backend, Request
from curate.recaption.local.batches import Ready, ready
from curate.recaption.local.choose import choose, uniforms

if TYPE_CHECKING:
    import torch

_HOW = {"device", "batch_size", "threads"}  # what does not decide what is written


class Coca(Backend):
    """Writes on after the prompt, which is the beginning of every caption; "" leaves all to the model.

    A caption depends on its request alone: batches are filled up to `batch_size` so that every image is computed in the
    same shape, and what is drawn is drawn by random numbers of the request's own.
    """

    name: ClassVar[str] = "coca"
    default_prompts: ClassVar[tuple[str, ...]] = ("",)

    model: str = "coca_ViT-B-32"  # an architecture of open_clip, or a folder that the trainer or open_clip wrote
    pretrained: str = "mscoco_finetuned_laion2b_s13b_b90k"  # an open_clip tag or a file; unused for a folder
    max_tokens: int = Field(32, ge=1)
    temperature: float = Field(0.0, ge=0, le=10)  # 0: the likeliest token each time
    top_p: float = Field(1.0, gt=0, le=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 on a GPU, fp32 on a CPU
    device: str | None = None  # the GPU if there is one
    batch_size: int = Field(32, ge=1)
    threads: int = Field(4, ge=1)  # that decode and resize images

    @property
    def folder(self) -> str:
        """The architecture's name, or the folder with its weights, which may be that of a training."""
        inside = Path(self.model) / "checkpoint"
        return str(inside) if (inside / openclip.CONFIG).is_file() else self.model

    @property
    def model_name(self) -> str:
        named = f"{self.model}/{self.pretrained}"
        return f"coca-{self._digest()[:12]}" if Path(self.folder).is_dir() else named

    def facts(self) -> dict[str, Any]:
        where = {"model", "pretrained"} if Path(self.folder).is_dir() else set()  # the digest says which
        return self.model_dump(mode="json", exclude=_HOW | where) | {"weights": self._digest()}

    def write(self, requests: Iterable[Request]) -> Iterator[Answer]:
        loaded = _load(self)
        collate = partial(loaded.collate, self.batch_size)
        for batch in ready(requests, self.batch_size, loaded.side, loaded.prepare, self.threads, collate):
            yield from batch.failed
            if batch.requests:
                yield from self._answers(loaded, batch)

    def _answers(self, loaded: _Loaded, batch: Ready) -> Iterator[Answer]:
        prompts = [loaded.tokenizer.encode(request.prompt) for request in batch.requests]
        empty = [list[int]()] * (self.batch_size - len(prompts))
        for request, asked, (tokens, ended) in zip(
            batch.requests, prompts, self.tokens(loaded, batch.inputs, prompts + empty, batch.requests), strict=False
        ):
            caption = as_text(loaded.tokenizer.decode([*asked, *tokens]))
            error = None if caption else "empty answer"
            yield Answer(request.uid, request.number, caption or None, error, len(asked) + 1, len(tokens) + ended)

    def tokens(
        self, loaded: _Loaded, pixels: np.ndarray, prompts: list[list[int]], requests: list[Request]
    ) -> list[tuple[list[int], bool]]:
        """The tokens written after each prompt, and whether they end there.

        Args:
            pixels: uint8 (batch_size, 3, S, S).
            requests: as many as there are real rows, which come first.
        """
        import torch

        device = loaded.model.device
        drawn = torch.zeros(len(prompts), loaded.writer.context, dtype=torch.float64, device=device)
        if self.temperature:
            drawn[: len(requests)] = torch.from_numpy(uniforms(requests, loaded.writer.context)).to(device)

        def next_token(logits: torch.Tensor, place: int) -> torch.Tensor:
            return choose(logits, drawn[:, place], self.temperature, self.top_p)

        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        kind = self.precision if self.precision != "auto" else "bf16" if device.type == "cuda" else "fp32"
        with torch.inference_mode(), torch.autocast(device.type, kinds.get(kind), enabled=kind in kinds):
            written = loaded.writer.write(loaded.normalised(pixels), prompts, self.max_tokens, next_token)
        return [(one.tokens, one.ended) for one in written]

    def _digest(self) -> str:
        with _own_words():
            return openclip.weights_digest(self.folder, self.pretrained)


@dataclass(frozen=True)
class _Loaded:
    """A model that is ready to write, and how its images are prepared."""

    model: openclip.Model
    writer: Any
    tokenizer: Any
    folder: str

    @property
    def side(self) -> int:
        return openclip.input_side(self.model.preprocess)

    def prepare(self, image: Any) -> np.ndarray:
        """An image as the model sees it: uint8 (3, S, S)."""
        return openclip.prepare(self.folder, self.model.preprocess, [image], []).pixels[0].numpy()

    def collate(self, rows: int, requests: list[Request], images: list[np.ndarray]) -> np.ndarray:
        """Images in a batch of always as many rows, the last of them empty: uint8 (rows, 3, S, S)."""
        pixels = np.zeros((rows, *images[0].shape), np.uint8)
        pixels[: len(images)] = np.stack(images)
        return pixels

    def normalised(self, pixels: np.ndarray) -> torch.Tensor:
        """uint8 (n, 3, S, S) to what the model takes, on its device."""
        import torch

        mean, std = (
            torch.tensor(self.model.preprocess[name], device=self.model.device).view(-1, 1, 1)
            for name in ("mean", "std")
        )
        return (torch.from_numpy(pixels).to(self.model.device).float().div_(255) - mean) / std


@cache
def _load(settings: Coca) -> _Loaded:
    """The model that the settings name; once per process.

    Raises:
        RequestError: there is none, it cannot be downloaded, or it does not write.
    """
    from open_clip import CoCa, SimpleTokenizer

    from curate.recaption.local.coca import Writer

    with _own_words():
        openclip.weights_digest(settings.folder, settings.pretrained)  # says so if there are none
        model = openclip.load(settings.folder, settings.pretrained, settings.device)
    words = openclip.tokenizer(settings.folder)
    if not isinstance(model.network, CoCa) or not isinstance(words, SimpleTokenizer):
        raise RequestError(f"backend.coca.model: {settings.model} is no CoCa with open_clip's own text tower")
    try:
        writer = Writer(model.network, words.sot_token_id, words.eot_token_id)
    except ValueError as error:
        raise RequestError(f"backend.coca.model: {settings.model}: {error}") from error
    return _Loaded(model, writer, words, settings.folder)


@contextlib.contextmanager
def _own_words() -> Iterator[None]:
    """What is wrong with a model is said of this backend."""
    try:
        yield
    except RequestError as error:
        raise RequestError(re.sub(r"features\.clip", "backend.coca", str(error))) from error


def as_text(decoded: str) -> str:
    """The words of open_clip's tokenizer with punctuation where people put it.

    >>> as_text("a dog 's bed , and ( maybe ) a cat .")
    "a dog's bed, and (maybe) a cat."
    """
    plain = " ".join(decoded.replace("<|startoftext|>", "").replace("<|endoftext|>", "").split())
    return re.sub(r" (?=[.,;:!?)\]%]|'(?:s|t|re|ve|m|ll|d)\b)|(?<=[(\[]) ", "", plain)
