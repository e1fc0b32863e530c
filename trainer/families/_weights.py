"""The checkpoint of a family that no other program loads: its weights, and the scale that they were built from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file, save_file

from trainer.family import Family, VisionLanguageModel
from trainer.model import open_clip_preprocessing
from trainer.scales import Scale

SCALE, WEIGHTS = "scale.json", "model.safetensors"


def save_weights(model: torch.nn.Module, scale: Scale, folder: Path) -> None:
    """Write the weights and the scale."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, str(folder / WEIGHTS), metadata={"format": "pt"})
    (folder / SCALE).write_text(json.dumps(scale.as_dict(), indent=2) + "\n")


class BuiltModel(VisionLanguageModel):
    """A model that its family builds again, with the weights of a checkpoint."""

    network: Any

    def __init__(self, family: Family, folder: Path, device: torch.device):
        scale = Scale(**json.loads((folder / SCALE).read_text()))
        self.family, self.device = family.name, device
        self.preprocess = open_clip.transform.image_transform_v2(
            open_clip.transform.PreprocessCfg(size=scale.image_size, **open_clip_preprocessing(scale)), is_train=False
        )
        self.tokenizer = family.tokenizer(scale)
        with torch.random.fork_rng():
            self.network = family.build(scale, 0, device).eval()
        self.network.load_state_dict(load_file(folder / WEIGHTS, device=str(device)))
