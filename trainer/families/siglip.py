"""SigLIP: two towers, and for every image and text of a batch one question: do the two belong together?

Zhai et al. 2023, "Sigmoid loss for language image pre-training", arXiv:2303.15343. Each pair is judged by itself, with
a learned bias because nearly all pairs are wrong ones. The towers, the loss and the tokenizer are open_clip's.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import open_clip
import torch
from torch.nn import functional

from trainer.distributed import World
from trainer.families._open_clip import OpenClipModel, gathered, read_hard_negatives, save_open_clip
from trainer.family import Family, Outputs, VisionLanguageModel
from trainer.hard_negatives import WithHardNegatives
from trainer.model import Tokenizer, build_model, build_tokenizer, model_config
from trainer.scales import Scale

FIRST_SCALE = math.log(10)


def first_logits(scale: Scale) -> dict[str, float]:
    """open_clip's names for the first temperature, the paper's, and the first bias: that of one true pair per batch.

    The paper's -10 is that of its batches of 32,768. In a batch of some hundreds it makes a model first draw all its
    vectors together, which it can hardly undo.
    """
    return {"init_logit_scale": FIRST_SCALE, "init_logit_bias": -math.log(scale.batch_size)}


@dataclass(frozen=True)
class Siglip(Family):
    """The contrastive model of pairwise sigmoids.

    `hard_negatives`: each image is also told from captions that differ in an attribute, a relation or word order.
    """

    name: ClassVar = "siglip"
    contrastive: ClassVar = True
    hard_negatives: bool = False

    def configure(self, scale: Scale) -> Scale:
        """The scale's own towers, with the temperature and the bias that the loss needs."""
        return dataclasses.replace(scale, model={**model_config(scale), **first_logits(scale)})

    def tokenizer(self, scale: Scale) -> Tokenizer:
        tokenizer = build_tokenizer(scale)
        return WithHardNegatives(tokenizer) if self.hard_negatives else tokenizer

    def build(self, scale: Scale, seed: int, device: torch.device) -> torch.nn.Module:
        model = build_model(scale, seed, device)
        if self.hard_negatives:
            read_hard_negatives(model)
        return model

    def loss(self, outputs: Outputs, tokens: torch.Tensor, world: World) -> torch.Tensor:
        """The cross entropies of all pairs of the whole batch, summed over the texts and averaged over the images."""
        sigmoids = open_clip.loss.SigLipLoss(rank=world.rank, world_size=world.size, dist_impl="gather")
        images, texts = outputs["image_features"].float(), outputs["text_features"].float()
        scale, bias = outputs["logit_scale"], outputs["logit_bias"]
        loss = sigmoids(images, texts, scale, bias)
        if self.hard_negatives:
            negatives = gathered(outputs["negative_features"].float(), world)
            wrong = functional.logsigmoid(-(scale * images @ negatives.T + bias))
            loss = loss - (wrong * negatives.any(1)).sum() / len(images)  # not where a caption has no hard negative
        return loss

    def save(self, model: torch.nn.Module, scale: Scale, folder: Path) -> None:
        save_open_clip(model, scale, folder)

    def load(self, folder: Path, device: torch.device) -> VisionLanguageModel:
        return OpenClipModel(self.name, folder, device)
