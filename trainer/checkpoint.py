"""Writes and reads `OUT/checkpoint/` (the model, for open_clip) and `OUT/state.pt` (to resume a training)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from trainer.model import Tokenizer, open_clip_config, quiet
from trainer.scales import Scale

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"


def save_checkpoint(model: torch.nn.Module, scale: Scale, folder: Path) -> None:
    """Writes a folder that open_clip loads as "local-dir:FOLDER"; whole or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, str(partial / WEIGHTS), metadata={"format": "pt"})
    (partial / CONFIG).write_text(json.dumps(open_clip_config(scale), indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load_checkpoint(folder: str | Path, device: str | torch.device = "cpu") -> tuple[Any, Any, Tokenizer]:
    """The model in evaluation mode, its image preprocessing (PIL image -> (3, S, S)), and its tokenizer.

    Args:
        folder: a checkpoint folder, or the OUT of a training that holds one.

    Raises:
        ValueError: the folder is missing or holds no checkpoint.
    """
    folder = find_checkpoint(folder)
    with quiet():
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", device=device)
        return model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{folder}")


def find_checkpoint(folder: str | Path) -> Path:
    """The checkpoint folder itself, or the one inside a training's OUT.

    Raises:
        ValueError: there is none.
    """
    for candidate in (Path(folder), Path(folder) / "checkpoint"):
        if (candidate / CONFIG).is_file() and (candidate / WEIGHTS).is_file():
            return candidate
    raise ValueError(f"checkpoint: {folder} holds no {CONFIG} with {WEIGHTS}")


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors and plain values, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_state(path: Path) -> dict[str, Any]:
    """Reads what `save_state` wrote, on the CPU; only tensors and plain values are ever unpickled."""
    return torch.load(path, map_location="cpu", weights_only=True)
