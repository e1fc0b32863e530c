"""CLIP: an image tower and a text tower whose unit vectors are near for pairs and far for all others of a batch.

Radford et al. 2021, "Learning transferable visual models from natural language supervision", arXiv:2103.00020. The
towers, the loss and the tokenizer are open_clip's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import open_clip
import torch

from trainer.distributed import World
from trainer.families._open_clip import OpenClipModel, save_open_clip
from trainer.family import Family, Outputs, VisionLanguageModel
from trainer.model import Tokenizer, build_model, build_tokenizer
from trainer.scales import Scale

MAX_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True)
class Clip(Family):
    """The contrastive reference model (InfoNCE)."""

    name: ClassVar = "clip"
    contrastive: ClassVar = True

    def tokenizer(self, scale: Scale) -> Tokenizer:
        return build_tokenizer(scale)

    def build(self, scale: Scale, seed: int, device: torch.device) -> torch.nn.Module:
        return build_model(scale, seed, device)

    def loss(self, outputs: Outputs, tokens: torch.Tensor, world: World) -> torch.Tensor:
        """The mean cross entropy of finding each image's text and each text's image in the whole batch."""
        infonce = open_clip.ClipLoss(
            local_loss=True, gather_with_grad=True, cache_labels=True, rank=world.rank, world_size=world.size
        )
        images, texts = outputs["image_features"].float(), outputs["text_features"].float()
        return infonce(images, texts, outputs["logit_scale"])

    def after_step(self, model: Any) -> None:
        """The temperature stays at 1/100 or above, as in the paper."""
        model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

    def save(self, model: torch.nn.Module, scale: Scale, folder: Path) -> None:
        save_open_clip(model, scale, folder)

    def load(self, folder: Path, device: torch.device) -> VisionLanguageModel:
        return OpenClipModel(self.name, folder, device)
