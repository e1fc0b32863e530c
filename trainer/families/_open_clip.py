"""What the families that are open_clip's models share: their checkpoint folder, and how they are asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

from trainer.family import VisionLanguageModel
from trainer.model import open_clip_config, quiet
from trainer.scales import Scale

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"


def save_open_clip(model: torch.nn.Module, scale: Scale, folder: Path) -> None:
    """Write what open_clip loads as "local-dir:FOLDER"."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, str(folder / WEIGHTS), metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(open_clip_config(scale), indent=2) + "\n")


class OpenClipModel(VisionLanguageModel):
    """A model of two towers."""

    embeds = True

    def __init__(self, family: str, folder: Path, device: torch.device):
        self.family, self.device = family, device
        with quiet():
            model, _, self.preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", device=device)
            self.network = model.eval()
            self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")

    @torch.inference_mode()
    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        return self.network.encode_image(images, normalize=True).float()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        tokens = self.tokenizer(list(texts)).to(self.device)
        return self.network.encode_text(tokens, normalize=True).float()
