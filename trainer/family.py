"""What a model family is: how its model is built, trained, kept and asked. One file each in `trainer/families/`."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from trainer.distributed import World
from trainer.model import Tokenizer
from trainer.scales import Scale
from trainer.shards import Sample

Outputs = dict[str, torch.Tensor]
DEFAULT = "clip"


class VisionLanguageModel(ABC):
    """A trained model as evaluation tasks see it. What its family cannot do raises ValueError.

    `images` are float32 (N, 3, S, S) on `device`, as `preprocess` makes each of them of a PIL image.
    """

    family: str
    device: torch.device
    preprocess: Callable[[Image.Image], torch.Tensor]
    embeds: bool = False  # whether it has `embed_images` and `embed_texts`
    generates: bool = False  # whether it has `generate`
    grounds: bool = False  # whether it has `ground`

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """Unit vectors, float32 (N, D)."""
        raise ValueError(f"family: {self.family} has no embeddings, which this task needs")

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors, float32 (M, D)."""
        raise ValueError(f"family: {self.family} has no embeddings, which this task needs")

    def match(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """How well each text fits each image, float32 (N, M), higher is better; comparable within a row."""
        return self.embed_images(images) @ self.embed_texts(texts).T

    def match_pairs(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """How well the nth text fits the nth image, float32 (N,): the diagonal of `match`, for less work."""
        return (self.embed_images(images) * self.embed_texts(texts)).sum(dim=1)

    def generate(self, images: torch.Tensor, prompts: Sequence[str], max_tokens: int = 32) -> list[str]:
        """What the model says of each image after its prompt ("" for a caption), greedily: N texts."""
        raise ValueError(f"family: {self.family} writes no text, which this task needs")

    def ground(self, images: torch.Tensor, phrases: Sequence[str]) -> torch.Tensor:
        """Where the nth phrase is in the nth image: float32 (N, 4), the box's x0, y0, x1, y1 as shares 0..1 of the
        image's sides from the top left; NaN where the model names no box.
        """
        raise ValueError(f"family: {self.family} names no boxes, which this task needs")


@dataclasses.dataclass(frozen=True)
class Family(ABC):
    """A model family. Its fields are its options, all with a default, as plain JSON values."""

    name: ClassVar[str]
    contrastive: ClassVar[bool] = False
    """Whether its loss compares the samples of a batch, so that a batch cannot be summed up from parts of it."""
    staged: ClassVar[bool] = False
    """Whether `before_step` chooses which parameters a step trains."""

    def configure(self, scale: Scale) -> Scale:
        """The scale with the model and the settings that this family has at it."""
        return scale

    @abstractmethod
    def tokenizer(self, scale: Scale) -> Tokenizer:
        """N texts to int64 (N, ...): the first axis is the sample's, the others are the family's own."""

    @abstractmethod
    def build(self, scale: Scale, seed: int, device: torch.device) -> torch.nn.Module:
        """The model with fresh weights, the same for the same seed.

        Called with images (B, 3, S, S) and tokens (B, ...) it gives the outputs that `loss` takes.
        """

    @abstractmethod
    def loss(self, outputs: Outputs, tokens: torch.Tensor, world: World) -> torch.Tensor:
        """The loss of this process's part of a batch, a scalar with gradient."""

    def text(self, sample: Sample) -> str:
        """What the model is to learn to say or to match of a sample.

        Raises:
            BadSampleError: it has no such text.
        """
        return sample.caption

    def before_step(self, model: Any, step: int, steps: int) -> float:
        """Called before each optimizer step, counted from 0; gives the factor of the step's learning rate.

        A `staged` family sets `requires_grad` here; what a step does not train keeps its value and its optimizer
        state. Only what `build` leaves with `requires_grad` is ever trained.
        """
        return 1.0

    def after_step(self, model: Any) -> None:
        """Called after each optimizer step, without gradient; to keep a parameter within bounds, say."""
        return

    @abstractmethod
    def save(self, model: torch.nn.Module, scale: Scale, folder: Path) -> None:
        """Write the model into an empty folder; `family.json` is added to it by the caller."""

    @abstractmethod
    def load(self, folder: Path, device: torch.device) -> VisionLanguageModel:
        """The model that `save` wrote, ready to be evaluated."""

    def as_dict(self) -> dict[str, Any]:
        """The name and the options, as plain JSON values."""
        return {"name": self.name} | dataclasses.asdict(self)


def family_names() -> list[str]:
    """The families that there are: the files of `trainer/families/`."""
    import trainer.families

    return sorted(found.name for found in pkgutil.iter_modules(trainer.families.__path__) if found.name[0] != "_")


def get_family(family: str | Mapping[str, Any] | Family) -> Family:
    """A family by name, or by a mapping of `name` and options; a `Family` is returned as it is.

    Raises:
        ValueError: there is no such family, or it has no such option.
    """
    if isinstance(family, Family):
        return family
    options = {"name": family} if isinstance(family, str) else dict(family)
    name = options.pop("name", DEFAULT)
    if name not in family_names():
        raise ValueError(f"family: {name!r} is not one of {', '.join(family_names())}")
    found = getattr(importlib.import_module(f"trainer.families.{name}"), "".join(map(str.title, name.split("_"))))
    known = [field.name for field in dataclasses.fields(found)]
    if unknown := sorted(options.keys() - set(known)):
        raise ValueError(f"family: {name} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    return found(**options)
