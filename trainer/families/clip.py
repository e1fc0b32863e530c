"""CLIP: an image tower and a text tower whose unit vectors are near for pairs and far for all others of a batch.

Radford et al. 2021, "Learning transferable visual models from natural language supervision", arXiv:2103.00020. The
towers, the loss and the tokenizer are open_clip's. With hard negatives it is NegCLIP (Yuksekgonul et al. 2023,
arXiv:2210.01936).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import open_clip
import torch
from torch.nn import functional

from trainer.distributed import World
from trainer.families._open_clip import OpenClipModel, gathered, read_hard_negatives, save_open_clip
from trainer.family import Family, Outputs, VisionLanguageModel
from trainer.hard_negatives import WithHardNegatives
from trainer.model import Tokenizer, build_model, build_tokenizer
from trainer.scales import Scale

MAX_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True)
class Clip(Family):
    """The contrastive reference model (InfoNCE).

    `hard_negatives`: each image is also told from a caption that differs in an attribute, a relation or word order.
    """

    name: ClassVar = "clip"
    contrastive: ClassVar = True
    hard_negatives: bool = False

    def tokenizer(self, scale: Scale) -> Tokenizer:
        tokenizer = build_tokenizer(scale)
        return WithHardNegatives(tokenizer) if self.hard_negatives else tokenizer

    def build(self, scale: Scale, seed: int, device: torch.device) -> torch.nn.Module:
        model = build_model(scale, seed, device)
        if self.hard_negatives:
            read_hard_negatives(model)
        return model

    def loss(self, outputs: Outputs, tokens: torch.Tensor, world: World) -> torch.Tensor:
        """The mean cross entropy of finding each image's text and each text's image in the whole batch."""
        infonce = open_clip.ClipLoss(
            local_loss=True, gather_with_grad=True, cache_labels=True, rank=world.rank, world_size=world.size
        )
        images, texts = outputs["image_features"].float(), outputs["text_features"].float()
        if not self.hard_negatives:
            return infonce(images, texts, outputs["logit_scale"])
        per_image, per_text = infonce.get_logits(images, texts, outputs["logit_scale"])  # each (B, all processes' B)
        negatives = gathered(outputs["negative_features"].float(), world)
        per_negative = outputs["logit_scale"] * images @ negatives.T
        per_negative = per_negative.masked_fill(~negatives.any(1), -torch.inf)  # a caption without a hard negative
        labels = infonce.get_ground_truth(images.device, len(images))
        finding_texts = functional.cross_entropy(torch.cat([per_image, per_negative], dim=1), labels)
        return (finding_texts + functional.cross_entropy(per_text, labels)) / 2

    def after_step(self, model: Any) -> None:
        """The temperature stays at 1/100 or above, as in the paper."""
        model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

    def save(self, model: torch.nn.Module, scale: Scale, folder: Path) -> None:
        save_open_clip(model, scale, folder)

    def load(self, folder: Path, device: torch.device) -> VisionLanguageModel:
        return OpenClipModel(self.name, folder, device)
