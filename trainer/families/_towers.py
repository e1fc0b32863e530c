"""Opens pretrained parts: the vision tower of any open_clip model, and any Hugging Face language model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from trainer.checkpoint import CONFIG, find_checkpoint
from trainer.families._generative import PAD
from trainer.model import open_clip_config, quiet
from trainer.scales import Scale

_FEWEST = 9  # places of a feature map that still says where things are


def vision_config(vision: str | None, pretrained: str | None, fresh: Scale) -> dict[str, Any]:
    """The tower's model and preprocessing, as open_clip's `open_clip_config.json` holds them.

    Args:
        vision: a checkpoint folder, an open_clip model's name, or None for the model of `fresh`.

    Raises:
        ValueError: there is no such folder or model, or no weights of that tag.
    """
    if vision is None:
        return open_clip_config(fresh)
    if Path(vision).is_dir():
        file = find_checkpoint(vision) / CONFIG
        if not file.is_file():
            raise ValueError(f"family: backbone: vision: {vision} is not a checkpoint with a tower of open_clip's")
        config: dict[str, Any] = json.loads(file.read_text())
        return config
    model = open_clip.get_model_config(vision)
    if model is None:
        raise ValueError(f"family: backbone: vision: {vision!r} is neither a folder nor a model of open_clip's")
    known = open_clip.list_pretrained_tags_by_model(vision)
    if pretrained not in (None, *known):
        raise ValueError(f"family: backbone: pretrained: {vision} has no {pretrained!r}, only {', '.join(known)}")
    found = open_clip.get_pretrained_cfg(vision, pretrained) if pretrained else {}
    preprocess = {key: found[key] for key in ("mean", "std", "interpolation", "resize_mode") if found.get(key)}
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def open_vision(vision: str | None, pretrained: str | None, config: dict[str, Any]) -> nn.Module:
    """The image tower, with its weights where `vision` names some."""
    with quiet():
        if vision is not None and Path(vision).is_dir():
            return open_clip.create_model(f"local-dir:{find_checkpoint(vision)}").visual
        if vision is not None and pretrained:
            return open_clip.create_model(vision, pretrained=pretrained).visual
    return empty_vision(config)


def empty_vision(config: dict[str, Any]) -> nn.Module:
    """The image tower of a config with fresh weights."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        (Path(folder) / CONFIG).write_text(json.dumps(config))
        return open_clip.create_model(f"local-dir:{folder}", load_weights=False).visual


class Sight(nn.Module):
    """An image tower that says of every place what its last layer saw there: for a ViT, of every patch.

    Where its last feature map has fewer than 3 x 3 places, as in a small ResNet, they are those of the last map that
    has so many, and each is told what the last map says of it too.
    """

    def __init__(self, tower: nn.Module, image_size: int):
        super().__init__()
        self.tower: Any = tower
        with torch.no_grad():  # evaluating: the running statistics stay
            maps = [m.shape for m in self.eval()._maps(torch.zeros(1, 3, image_size, image_size), None)]
        wide = max((i for i, m in enumerate(maps) if m[2] * m[3] >= _FEWEST), default=0)
        self.layers = sorted({wide, len(maps) - 1})
        self.width = sum(maps[layer][1] for layer in self.layers)
        self.train()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, S, S) as features (B, places, width), row by row."""
        places, *more = self._maps(images, self.layers)
        found = [places] + [nn.functional.interpolate(last, places.shape[2:]) for last in more]
        return torch.cat(found, dim=1).flatten(2).transpose(1, 2)

    def _maps(self, images: torch.Tensor, layers: list[int] | None) -> list[torch.Tensor]:
        found: list[torch.Tensor] = self.tower.forward_intermediates(images, indices=layers, intermediates_only=True)[
            "image_intermediates"
        ]
        return found


class HubWords:
    """A Hugging Face tokenizer as the families use one.

    Where the model has no token for the start of a text, that for the end does both, as in GPT-2.
    """

    def __init__(self, tokenizer: Any, context: int):
        self.tokenizer, self.context = tokenizer, context
        if tokenizer.eos_token_id is None:
            raise ValueError("family: backbone: language_model: its tokenizer has no token for the end of a text")
        self.end = int(tokenizer.eos_token_id)
        self.start = self.end if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id)
        self.special = set(tokenizer.all_special_ids)

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """int64 (N, context): start, the text, end, padding; a text that is too long loses its last tokens."""
        rows = torch.full((len(texts), self.context), PAD)
        for row, text in zip(rows, texts, strict=True):
            ids = [self.start, *self.encode(text)[: self.context - 2], self.end]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def encode(self, text: str) -> list[int]:
        """The tokens of a text alone; what a caption may hold of the model's special tokens is left out."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [token for token in ids if token not in self.special]

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _hub(load: Callable[..., Any], name: str, **options: Any) -> Any:
    try:
        return load(name, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(f"family: backbone: language_model: {name} cannot be read ({reason})") from error


def open_tokenizer(name: str, context: int) -> HubWords:
    """The tokenizer of a model by its folder or its name on the hub. Code that comes with it is never run.

    Raises:
        ValueError: there is none, or it needs code of its own.
    """
    transformers = import_transformers()
    return HubWords(_hub(transformers.AutoTokenizer.from_pretrained, name), context)


def open_language(name: str) -> nn.Module:
    """The causal language model by its folder or its name on the hub, in fp32, from safetensors only.

    Raises:
        ValueError: there is none, it needs code of its own, or it has no safetensors.
    """
    transformers = import_transformers()
    load = transformers.AutoModelForCausalLM.from_pretrained
    model: nn.Module = _hub(load, name, use_safetensors=True, dtype=torch.float32)
    return model


def import_transformers() -> Any:
    """The module `transformers`, of the extra `hf`.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import transformers
    except ImportError as missing:
        raise ValueError("family: backbone needs transformers: install curate[hf]") from missing
    transformers.utils.logging.disable_progress_bar()
    return transformers
