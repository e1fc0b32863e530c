"""What the families that are open_clip's models share: their checkpoint folder, and how they are asked."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch.distributed.nn import all_gather

from trainer.distributed import World
from trainer.family import Outputs, VisionLanguageModel
from trainer.model import CLIP_VOCABULARY, build_model, merges, model_config, open_clip_config, quiet
from trainer.scales import SCALES, Scale

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
MERGES = "merges.txt.gz"

# What a family that needs patches or a small vocabulary has at `tiny`.
TINY_TRANSFORMERS: dict[str, Any] = {
    "embed_dim": 96,
    "vision_cfg": {"image_size": 48, "patch_size": 8, "width": 96, "layers": 3, "head_width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 2048, "width": 96, "heads": 3, "layers": 2},
    "custom_text": True,
}


def with_patches(scale: Scale, **more: Any) -> dict[str, Any]:
    """The config of the scale's model, or where that has no patches of a tiny one of transformers, which has `more`."""
    config = model_config(scale)
    if "patch_size" not in config["vision_cfg"]:
        config = json.loads(json.dumps(TINY_TRANSFORMERS | more))
        config["vision_cfg"]["image_size"] = scale.image_size
    return config


def with_small_steps(scale: Scale) -> Scale:
    """`tiny` for a transformer, which costs more per sample and wants more steps: smaller batches, a lower rate and a
    quarter of the samples. Another scale, or a `tiny` whose batch or rate was changed, stays.
    """
    usual = SCALES["tiny"]
    if scale.name != "tiny" or (scale.batch_size, scale.lr) != (usual.batch_size, usual.lr):
        return scale
    samples = min(scale.samples_seen, usual.samples_seen // 4)
    return dataclasses.replace(scale, batch_size=64, lr=1e-3, samples_seen=samples)


def build_with_stem(scale: Scale, seed: int, device: torch.device) -> Any:
    """`build_model`, whose patches come out of a few convolutions where the config says `stem: convolutions`.

    From few samples a transformer hardly learns to see by one linear map of each patch; convolutions let it (Xiao et
    al. 2021, "Early convolutions help transformers see better", arXiv:2106.14881). open_clip has no such tower.
    """
    config = model_config(scale)
    stem = config.pop("stem", "")
    model: Any = build_model(dataclasses.replace(scale, model=config), seed, device)
    if stem:
        width, patch = model.visual.conv1.out_channels, model.visual.patch_size[0]
        halvings = patch.bit_length() - 1  # a patch of 8 pixels is three steps of two
        widths = [3, *(width >> step for step in reversed(range(halvings)))]
        layers = list[torch.nn.Module]()
        for before, after in itertools.pairwise(widths):
            layers += [torch.nn.Conv2d(before, after, 3, 2, 1), torch.nn.GroupNorm(4, after), torch.nn.GELU()]
        model.visual.conv1 = torch.nn.Sequential(*layers, torch.nn.Conv2d(width, width, 1))
    return model.to(device)


def save_open_clip(model: torch.nn.Module, scale: Scale, folder: Path) -> None:
    """Write what open_clip loads as "local-dir:FOLDER"; a small vocabulary needs `bpe_path=FOLDER/merges.txt.gz` in
    `open_clip.get_tokenizer`.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, str(folder / WEIGHTS), metadata={"format": "pt"})
    config = open_clip_config(scale)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    if (vocabulary := config["model_cfg"]["text_cfg"].get("vocab_size", CLIP_VOCABULARY)) != CLIP_VOCABULARY:
        (folder / MERGES).write_bytes(merges(vocabulary))


class OpenClipModel(VisionLanguageModel):
    """A model of two towers."""

    embeds = True

    def __init__(self, family: str, folder: Path, device: torch.device):
        self.family, self.device = family, device
        own = {"bpe_path": str(folder / MERGES)} if (folder / MERGES).is_file() else {}
        with quiet():
            model, _, self.preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", device=device)
            self.network = model.eval()
            self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}", **own)

    @torch.inference_mode()
    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        return self.network.encode_image(images, normalize=True).float()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        tokens = self.tokenizer(list(texts)).to(self.device)
        return self.network.encode_text(tokens, normalize=True).float()


def read_hard_negatives(model: torch.nn.Module) -> None:
    """Makes a model of two towers take tokens (B, 2, L) and give `negative_features` (B, D) too.

    They are zeros where a caption has no hard negative.
    """

    def flatten(module: torch.nn.Module, inputs: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        images, tokens = inputs
        return images, tokens.transpose(0, 1).flatten(0, 1)

    def split(module: torch.nn.Module, inputs: tuple[torch.Tensor, torch.Tensor], outputs: Outputs) -> Outputs:
        texts, negatives = outputs["text_features"].chunk(2)
        there = inputs[1].chunk(2)[1].any(1, keepdim=True)
        return {**outputs, "text_features": texts, "negative_features": negatives * there}

    model.register_forward_pre_hook(flatten)
    model.register_forward_hook(split)


def gathered(features: torch.Tensor, world: World) -> torch.Tensor:
    """The rows of every process, in the order of their ranks, with gradient."""
    if world.size == 1:
        return features
    return torch.cat(all_gather(features))
