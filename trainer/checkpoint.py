"""Writes and reads `OUT/checkpoint/` (the model) and `OUT/state.pt` (to resume a training)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from trainer.distributed import choose_device
from trainer.family import DEFAULT, Family, VisionLanguageModel, get_family
from trainer.scales import Scale

FAMILY = "family.json"
CONFIG = "open_clip_config.json"


def save_checkpoint(model: torch.nn.Module, family: Family, scale: Scale, folder: Path) -> None:
    """Write the model as its family keeps it; whole or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    family.save(model, scale, partial)
    (partial / FAMILY).write_text(json.dumps(family.as_dict(), indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load_checkpoint(folder: str | Path, device: str | torch.device | None = None) -> VisionLanguageModel:
    """The model in evaluation mode.

    Args:
        folder: a checkpoint folder, or the OUT of a training that holds one; a folder of open_clip's own, without
            `family.json`, is a CLIP model.

    Raises:
        ValueError: the folder is missing or holds no checkpoint.
    """
    folder = find_checkpoint(folder)
    file = folder / FAMILY
    family = get_family(json.loads(file.read_text()) if file.is_file() else DEFAULT)
    return family.load(folder, device if isinstance(device, torch.device) else choose_device(device))


def find_checkpoint(folder: str | Path) -> Path:
    """The checkpoint folder itself, or the one inside a training's OUT.

    Raises:
        ValueError: there is none.
    """
    for candidate in (Path(folder), Path(folder) / "checkpoint"):
        known = any((candidate / name).is_file() for name in (FAMILY, CONFIG))
        if known and any(candidate.glob("*.safetensors")):
            return candidate
    raise ValueError(f"checkpoint: {folder} holds no {FAMILY} or {CONFIG} with weights (.safetensors)")


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, on the CPU; only tensors and plain values are ever unpickled."""
    return torch.load(path, map_location="cpu", weights_only=True)
