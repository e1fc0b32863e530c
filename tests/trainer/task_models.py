"""Models for the tests of evaluation tasks: they know an image by its colour and do as they are told."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from trainer.family import VisionLanguageModel


def picture(number: int, size: tuple[int, int] = (20, 10)) -> bytes:
    """A PNG that `Scripted` knows as this number, 0 to 255."""
    file = io.BytesIO()
    Image.new("RGB", size, (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_jsonl(folder: Path, settings: dict[str, Any], items: Sequence[dict[str, Any]]) -> Path:
    """A task in the layout of JSON lines; fields of bytes become image files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.json").write_text(json.dumps(settings))
    with (folder / "items.jsonl").open("w") as file:
        for number, item in enumerate(items):
            fields = dict(item)
            for name in [name for name, value in item.items() if isinstance(value, bytes)]:
                (folder / f"{number}-{name}.png").write_bytes(fields[name])
                fields[name] = f"{number}-{name}.png"
            file.write(json.dumps(fields) + "\n")
    return folder


class Scripted(VisionLanguageModel):
    """`fits(number, text)`, `says(number, prompt)` and `finds(number, phrase)` are asked of each image's number."""

    family, device = "scripted", torch.device("cpu")

    def __init__(
        self,
        fits: Callable[[int, str], float] | None = None,
        says: Callable[[int, str], str] | None = None,
        finds: Callable[[int, str], Sequence[float]] | None = None,
    ):
        self.fits, self.says, self.finds = fits, says, finds
        self.generates, self.grounds = says is not None, finds is not None

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return torch.full((3, 2, 2), float(image.getpixel((0, 0))[0]))  # type: ignore[index]

    def match(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        assert self.fits
        return torch.tensor([[self.fits(number, text) for text in texts] for number in _numbers(images)])

    def match_pairs(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        assert self.fits
        assert len(images) == len(texts)
        return torch.tensor([self.fits(number, text) for number, text in zip(_numbers(images), texts, strict=True)])

    def generate(self, images: torch.Tensor, prompts: Sequence[str], max_tokens: int = 32) -> list[str]:
        if not self.says:
            return super().generate(images, prompts, max_tokens)
        assert len(images) == len(prompts)
        return [self.says(number, prompt) for number, prompt in zip(_numbers(images), prompts, strict=True)]

    def ground(self, images: torch.Tensor, phrases: Sequence[str]) -> torch.Tensor:
        if not self.finds:
            return super().ground(images, phrases)
        return torch.tensor([list(self.finds(n, text)) for n, text in zip(_numbers(images), phrases, strict=True)])


class Embedding(Scripted):
    """The same with embeddings: `vector(number)` of an image, `vector(text)` of a text, made unit vectors."""

    embeds = True

    def __init__(self, vector: Callable[[int | str], Sequence[float]]):
        super().__init__()
        self.vector = vector

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        return _unit([self.vector(number) for number in _numbers(images)])

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return _unit([self.vector(text) for text in texts])

    def match(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        return VisionLanguageModel.match(self, images, texts)

    def match_pairs(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        return VisionLanguageModel.match_pairs(self, images, texts)


def _numbers(images: torch.Tensor) -> list[int]:
    return [int(value) for value in images[:, 0, 0, 0]]


def _unit(vectors: list[Sequence[float]]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(vectors, dtype=torch.float32), dim=-1)
