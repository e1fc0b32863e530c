"""Llip: the image tower gives several vectors, and each caption says how to mix them before the two are compared.

Lavoie et al. 2024, "Modeling caption diversity in contrastive vision-language pretraining", arXiv:2405.00740. An image
can be described in many ways; CLIP asks for one vector that is near all of them. Towers and tokenizer are open_clip's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainer.distributed import World
from trainer.families._open_clip import build_with_stem, gathered, with_patches, with_small_steps
from trainer.families._weights import BuiltModel, save_weights
from trainer.families.siglip import first_logits
from trainer.family import Family, Outputs, VisionLanguageModel
from trainer.model import Tokenizer, build_tokenizer
from trainer.scales import Scale

PAIRS_AT_ONCE = 1 << 18  # images times texts that are pooled at a time


@dataclass(frozen=True)
class Llip(Family):
    """`mixture_tokens` are learned tokens that go through the image tower beside the patches; a caption mixes what
    comes out of them, in each of `heads` parts of the vector with other weights.
    """

    name: ClassVar = "llip"
    contrastive: ClassVar = True
    mixture_tokens: int = 8
    heads: int = 8
    temperature: float = 5.0  # of the weights; higher is more even

    def configure(self, scale: Scale) -> Scale:
        """The scale's model with an image tower of patches, with SigLIP's first temperature and bias."""
        scale = with_small_steps(scale)
        return dataclasses.replace(scale, model={**with_patches(scale, stem="convolutions"), **first_logits(scale)})

    def tokenizer(self, scale: Scale) -> Tokenizer:
        return build_tokenizer(scale)

    def build(self, scale: Scale, seed: int, device: torch.device) -> torch.nn.Module:
        return Mixture(build_with_stem(scale, seed, device), self).to(device)

    def loss(self, outputs: Outputs, tokens: torch.Tensor, world: World) -> torch.Tensor:
        """SigLIP's loss of the cosines between each text and each image as that text mixes it."""
        texts, queries = (gathered(outputs[name].float(), world) for name in ("text_features", "queries"))
        cosines = all_cosines(outputs["keys"].float(), outputs["values"].float(), queries, texts, self.temperature)
        logits = outputs["logit_scale"] * cosines + outputs["logit_bias"]  # (B, all processes' B)
        signs = torch.full_like(logits, -1)
        signs[:, world.rank * len(logits) :].fill_diagonal_(1)  # each image's own text
        return -functional.logsigmoid(signs * logits).sum() / len(logits)

    def save(self, model: torch.nn.Module, scale: Scale, folder: Path) -> None:
        save_weights(model, scale, folder)

    def load(self, folder: Path, device: torch.device) -> VisionLanguageModel:
        return LlipModel(self, folder, device)


class Mixture(nn.Module):
    """The two towers, with mixture tokens in the image's, and the projections of the attention between them.

    The paper's projection after the heads is left out: the text's own projection learns to meet the heads' outputs.
    """

    def __init__(self, towers: Any, family: Llip):
        super().__init__()
        self.towers, self.heads = towers, family.heads
        width, size = towers.visual.proj.shape
        self.mixture_tokens = nn.Parameter(width**-0.5 * torch.randn(family.mixture_tokens, width))
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> Outputs:
        keys, values = self.see(images)
        texts, queries = self.read(tokens)
        return {
            "keys": keys,
            "values": values,
            "text_features": texts,
            "queries": queries,
            "logit_scale": self.towers.logit_scale.exp(),
            "logit_bias": self.towers.logit_bias,
        }

    def see(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of images, each (B, mixture tokens, heads, D / heads)."""
        visual = self.towers.visual
        patches = visual._embeds(images)
        mixture = self.mixture_tokens.to(patches.dtype).expand(len(patches), -1, -1)
        tokens = visual.transformer(torch.cat([patches, mixture], dim=1))[:, -mixture.shape[1] :]
        tokens = visual.ln_post(tokens) @ visual.proj
        return self.key(tokens).unflatten(-1, (self.heads, -1)), self.value(tokens).unflatten(-1, (self.heads, -1))

    def read(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors (B, D) of texts, and their queries (B, heads, D / heads)."""
        texts = self.towers.encode_text(tokens, normalize=True)
        return texts, self.query(texts).unflatten(-1, (self.heads, -1))


def some_cosines(
    keys: torch.Tensor, values: torch.Tensor, queries: torch.Tensor, texts: torch.Tensor, temperature: float
) -> torch.Tensor:
    """(N, M), for N images and M texts."""
    shares = (torch.einsum("nkhd,mhd->nmkh", keys, queries) / temperature).softmax(dim=2)
    pooled = torch.einsum("nmkh,nkhd->nmhd", shares, values).flatten(2)
    return torch.einsum("nmd,md->nm", functional.normalize(pooled, dim=-1), texts)


def all_cosines(
    keys: torch.Tensor, values: torch.Tensor, queries: torch.Tensor, texts: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The same a few texts at a time; with gradient, what is in between is computed again and not kept."""
    at_once = max(1, PAIRS_AT_ONCE // len(keys))
    columns = [
        checkpoint(some_cosines, keys, values, some_queries, some_texts, temperature, use_reentrant=False)
        for some_queries, some_texts in zip(queries.split(at_once), texts.split(at_once), strict=True)
    ]
    return torch.cat(columns, dim=1)


class LlipModel(BuiltModel):
    """A trained Llip: an image has no vector of its own, so it has no embeddings."""

    def __init__(self, family: Llip, folder: Path, device: torch.device):
        super().__init__(family, folder, device)
        self.temperature = family.temperature

    @torch.inference_mode()
    def match(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        keys, values = self.network.see(images)
        said, queries = self.network.read(self.tokenizer(list(texts)).to(self.device))
        return all_cosines(keys, values, queries, said, self.temperature)

    @torch.inference_mode()
    def match_pairs(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        keys, values = self.network.see(images)
        said, queries = self.network.read(self.tokenizer(list(texts)).to(self.device))
        shares = (torch.einsum("nkhd,nhd->nkh", keys, queries) / self.temperature).softmax(dim=1)
        pooled = torch.einsum("nkh,nkhd->nhd", shares, values).flatten(1)
        return (functional.normalize(pooled, dim=-1) * said).sum(1)
