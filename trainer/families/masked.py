"""A joint encoder that fills in what is hidden: patches of the image from the caption, words of the caption from the
image; and that says how well an image and a caption fit.

The sequence of image and words in one encoder is VisualBERT's (Li et al. 2019, arXiv:1908.03557); hiding patches and
words of the same pair is MaskVLM's (Kwon et al. 2023, arXiv:2208.02131) and FLAVA's (Singh et al. 2022,
arXiv:2112.04482), as is telling true pairs from shuffled ones; here the true one is found among a few, which is
learned from fewer samples than a yes or no to each. The image tower is open_clip's.
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

from trainer.distributed import World
from trainer.families._open_clip import build_with_stem, with_patches, with_small_steps
from trainer.families._weights import BuiltModel, save_weights
from trainer.family import Family, Outputs, VisionLanguageModel
from trainer.model import Tokenizer, build_tokenizer
from trainer.scales import Scale

PAD = 0
PAIRS_AT_ONCE = 2048  # images times texts that go through the joint encoder at a time
WRONG_CAPTIONS = 3
LOSSES = ("words_loss", "patches_loss", "match_loss")


@dataclass(frozen=True)
class Masked(Family):
    """`hidden_patches` and `hidden_words` are shares, 0..1; the weights are of the three losses."""

    name: ClassVar = "masked"
    hidden_patches: float = 0.5
    hidden_words: float = 0.3
    words_weight: float = 1.0
    patches_weight: float = 0.5
    match_weight: float = 1.0

    def configure(self, scale: Scale) -> Scale:
        """The image tower of the scale's model, and a joint encoder as wide and deep as its text tower."""
        return dataclasses.replace(with_small_steps(scale), model=with_patches(scale, stem="convolutions"))

    def tokenizer(self, scale: Scale) -> Tokenizer:
        return build_tokenizer(scale)

    def build(self, scale: Scale, seed: int, device: torch.device) -> torch.nn.Module:
        towers = build_with_stem(scale, seed, device)
        config: Any = scale.model
        return JointEncoder(towers.visual, config["text_cfg"], self, scale.grad_checkpointing).to(device)

    def loss(self, outputs: Outputs, tokens: torch.Tensor, world: World) -> torch.Tensor:
        weights = (self.words_weight, self.patches_weight, self.match_weight)
        return sum(
            (weight * outputs[name] for name, weight in zip(LOSSES, weights, strict=True)), outputs[LOSSES[0]] * 0
        )

    def save(self, model: torch.nn.Module, scale: Scale, folder: Path) -> None:
        save_weights(model, scale, folder)

    def load(self, folder: Path, device: torch.device) -> VisionLanguageModel:
        return MaskedModel(self, folder, device)


class JointEncoder(nn.Module):
    """An image tower for the patches, then one encoder over patches and words."""

    def __init__(self, visual: Any, text: dict[str, Any], family: Masked, grad_checkpointing: bool):
        super().__init__()
        self.family, self.visual = family, visual
        del visual.proj, visual.ln_post  # the joint encoder takes every token as the tower's last block gives it
        width, size = len(visual.class_embedding), text["width"]
        self.hidden_word = nn.Parameter(torch.zeros(size))
        self.seen = nn.Linear(width, size)
        self.words = nn.Embedding(text["vocab_size"], size)
        self.positions = nn.Parameter(0.02 * torch.randn(text["context_length"], size))
        layer = nn.TransformerEncoderLayer(
            size, text["heads"], 4 * size, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.joint = nn.TransformerEncoder(layer, text["layers"], nn.LayerNorm(size), enable_nested_tensor=False)
        self.word = nn.Linear(size, text["vocab_size"])
        self.patch = nn.Linear(size, 3 * visual.patch_size[0] ** 2)
        self.match = nn.Linear(size, 1)
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> Outputs:
        """The three losses, each a scalar; the share of images whose caption is found."""
        tokens = cut(tokens)
        words, patches = self.fill_in(images, tokens)
        match, right = self.judge(images, tokens)
        return {"words_loss": words, "patches_loss": patches, "match_loss": match, "match_accuracy": right}

    def fill_in(self, images: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The cross entropy of hidden words, and the squared error of hidden patches."""
        truth = functional.unfold(images, self.visual.patch_size, stride=self.visual.patch_size).transpose(1, 2)
        hidden = torch.rand(truth.shape[:2], device=images.device) < self.family.hidden_patches
        special = (tokens == PAD) | (tokens >= self.words.num_embeddings - 2)  # start and end are the last two
        silent = (torch.rand(tokens.shape, device=images.device) < self.family.hidden_words) & ~special
        seen, said = self.encode(self.see(images, hidden), tokens, silent)
        words = functional.cross_entropy(self.word(said[silent]).float(), tokens[silent], reduction="sum")
        error = (self.patch(seen[:, 1:]).float() - standardised(truth)).square().mean(2)
        return words / silent.sum().clamp(min=1), (error * hidden).sum() / hidden.sum().clamp(min=1)

    def judge(self, images: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The cross entropy of finding each image's caption among it and the next few samples' captions."""
        seen = self.see(images)
        fits = torch.stack([self.fit(seen, tokens.roll(-by, dims=0)) for by in range(1 + WRONG_CAPTIONS)], dim=1)
        first = torch.zeros(len(fits), dtype=torch.long, device=fits.device)
        return functional.cross_entropy(fits, first), (fits.argmax(1) == 0).float().mean()

    def see(self, images: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """The class token and the patches (B, 1 + P, width); `hidden` (B, P) says which patches to paint over."""
        if hidden is not None:
            rows, columns = self.visual.grid_size
            shown = ~hidden.view(-1, 1, rows, columns)
            images = images * functional.interpolate(shown.to(images.dtype), images.shape[2:])
        return self.visual.transformer(self.visual._embeds(images))

    def encode(
        self, seen: torch.Tensor, tokens: torch.Tensor, silent: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the joint encoder makes of patches (B, 1 + P, width) and tokens (B, L): (B, 1 + P, D), (B, L, D)."""
        said = self.words(tokens)
        if silent is not None:
            said = torch.where(silent[..., None], self.hidden_word, said)
        x = torch.cat([self.seen(seen), (said + self.positions[: tokens.shape[1]])], dim=1)
        padding = functional.pad(tokens == PAD, (seen.shape[1], 0))
        x = self.joint(x, src_key_padding_mask=padding)
        return x[:, : seen.shape[1]], x[:, seen.shape[1] :]

    def fit(self, seen: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """How well the nth caption fits the nth image, as a logit: float32 (B,)."""
        return self.match(self.encode(seen, tokens)[0][:, 0]).float().squeeze(1)


def standardised(patches: torch.Tensor) -> torch.Tensor:
    """Each patch with mean 0 and deviation 1, which makes for better features than plain pixels (He et al. 2022,
    "Masked autoencoders are scalable vision learners", arXiv:2111.06377).
    """
    mean, variance = patches.mean(2, keepdim=True), patches.var(2, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def cut(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens (B, L) without the columns that are padding throughout."""
    return tokens[:, : int((tokens != PAD).sum(1).max())]


class MaskedModel(BuiltModel):
    """A trained joint encoder: every pair goes through it, so it has no embeddings."""

    @torch.inference_mode()
    def match(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        tokens = cut(self.tokenizer(list(texts)).to(self.device))
        seen = self.network.see(images)
        columns = []
        for some in tokens.split(max(1, PAIRS_AT_ONCE // len(seen))):
            pairs = seen.repeat_interleave(len(some), dim=0)
            columns.append(self.network.fit(pairs, some.repeat(len(seen), 1)).view(len(seen), len(some)))
        return torch.cat(columns, dim=1)

    @torch.inference_mode()
    def match_pairs(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        return self.network.fit(self.network.see(images), cut(self.tokenizer(list(texts)).to(self.device)))
