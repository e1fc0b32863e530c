"""Builds the model, the tokenizer and the preprocessing of a scale, all of them open_clip's."""

from __future__ import annotations

import gzip
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch

from trainer.scales import Scale

Tokenizer = Callable[[list[str]], torch.Tensor]
CLIP_VOCABULARY = 49408
_BYTES = 512  # its first tokens: every byte, inside a word and at its end


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps open_clip from telling the root logger about every step of building a model."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def model_config(scale: Scale) -> dict[str, Any]:
    """The config of the scale's model as open_clip reads it, to be changed freely.

    Raises:
        ValueError: open_clip has no model of that name.
    """
    if isinstance(scale.model, str):
        model = open_clip.get_model_config(scale.model)
        if model is None:
            raise ValueError(f"scale {scale.name!r}: open_clip has no model {scale.model!r}")
    else:
        model = json.loads(json.dumps(dict(scale.model)))
    model["vision_cfg"]["image_size"] = scale.image_size
    return model


def open_clip_preprocessing(scale: Scale) -> dict[str, Any]:
    """How an image becomes pixels, as open_clip reads it."""
    return {
        "mean": list(scale.mean),
        "std": list(scale.std),
        "interpolation": "bicubic",
        "resize_mode": scale.resize_mode,
    }


def open_clip_config(scale: Scale) -> dict[str, Any]:
    """What open_clip reads from `open_clip_config.json`: the model and the preprocessing.

    Raises:
        ValueError: open_clip has no model of that name.
    """
    return {"model_cfg": model_config(scale), "preprocess_cfg": open_clip_preprocessing(scale)}


def build_model(scale: Scale, seed: int, device: torch.device) -> torch.nn.Module:
    """The scale's model with fresh weights, the same for the same seed, in channels_last memory.

    Called with images (B, 3, S, S) and tokens (B, L) it returns `image_features` and `text_features`, of unit length
    (B, D), and `logit_scale`, exponentiated; what other models of open_clip return is theirs.
    """
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:  # open_clip builds from a name or a folder, not from a dict
        (Path(folder) / "open_clip_config.json").write_text(json.dumps(open_clip_config(scale)))
        with quiet():
            model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, output_dict=True)
    if scale.grad_checkpointing:
        model.set_grad_checkpointing()
    model = model.to(device=device, memory_format=torch.channels_last)
    if not scale.compile:
        cut_padding(model)
    return model


def build_tokenizer(scale: Scale) -> Tokenizer:
    """The scale's tokenizer: list of N captions -> int64 (N, context length), zeros after the end token.

    A vocabulary smaller than CLIP's is CLIP's most frequent merges.

    Raises:
        ValueError: the model has a tokenizer of Hugging Face's, or a vocabulary that is too small.
    """
    text = model_config(scale)["text_cfg"]
    if "hf_tokenizer_name" in text:
        raise ValueError(f"scale {scale.name!r}: {scale.model!r} has a tokenizer that is not CLIP's")
    options = {"context_length": text.get("context_length", 77), **text.get("tokenizer_kwargs", {})}
    if text.get("vocab_size", CLIP_VOCABULARY) == CLIP_VOCABULARY:
        return open_clip.SimpleTokenizer(**options)
    with tempfile.NamedTemporaryFile(suffix=".gz") as file:
        file.write(merges(text["vocab_size"]))
        file.flush()
        return open_clip.SimpleTokenizer(bpe_path=file.name, **options)


def merges(vocabulary: int) -> bytes:
    """The file of merges with which `open_clip.SimpleTokenizer` has a vocabulary of that size.

    Raises:
        ValueError: it is less than the bytes and the two special tokens.
    """
    if not _BYTES + 2 < vocabulary <= CLIP_VOCABULARY:
        raise ValueError(f"scale: vocab_size {vocabulary} is not in {_BYTES + 3}..{CLIP_VOCABULARY}")
    with gzip.open(open_clip.tokenizer.default_bpe(), "rt", encoding="utf-8") as file:
        lines = [next(file) for _ in range(1 + vocabulary - _BYTES - 2)]  # the first one names the version
    return gzip.compress("".join(lines).rstrip("\n").encode(), mtime=0)


def cut_padding(model: torch.nn.Module) -> None:
    """Makes a causal text tower of its own (`custom_text`) compute only up to the longest caption of a batch.

    No token sees the padding after it, so the features are the same for a fraction of the work.
    """
    text = getattr(model, "text", None)
    if not isinstance(text, open_clip.model.TextTransformer) or text.attn_mask is None or text.pool_type != "argmax":
        return
    if text.cls_emb is not None:  # its place is after the padding
        return
    mask = text.attn_mask
    del text.attn_mask  # a plain attribute from here on: DDP would insist on equal buffers

    def cut(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (tokens,) = inputs
        length = int(tokens.count_nonzero(1).max())
        object.__setattr__(module, "attn_mask", mask[:length, :length])
        return (tokens[:, :length],)

    text.register_forward_pre_hook(cut)


def normalise(images: torch.Tensor, scale: Scale) -> torch.Tensor:
    """uint8 (B, S, S, 3) -> float32 (B, 3, S, S) in channels_last memory, as the checkpoint preprocesses."""
    mean = torch.tensor(scale.mean, device=images.device).mul(255)
    std = torch.tensor(scale.std, device=images.device).mul(255)
    return images.float().sub_(mean).div_(std).permute(0, 3, 1, 2)


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: decay on matrices and kernels, none on biases, norms and the logit scale."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
    ]
