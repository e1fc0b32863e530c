"""open_clip models for scoring: by architecture and tag or file, or from a folder that the trainer wrote."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curate.errors import RequestError
from curate.hashing import file_sha256

CONFIG = "open_clip_config.json"
MERGES = "merges.txt.gz"
"""Beside a checkpoint of the bundled trainer whose vocabulary is smaller than CLIP's."""


@dataclass(frozen=True)
class Model:
    """A loaded model: where it runs, and how its images are prepared (`preprocess` is open_clip's, picklable)."""

    network: Any
    device: Any
    preprocess: dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """A batch ready for the model. Tensors, because those go from process to process in shared memory."""

    pixels: Any
    """uint8 (images, 3, height, width)."""
    tokens: Any
    """int64 (texts, context)."""
    has_image: np.ndarray
    has_text: np.ndarray
    """bool (samples,): which samples the rows above belong to."""

    def pin_memory(self) -> Inputs:
        """The same in memory that a GPU copies from by itself; torch's loader calls this."""
        return replace(self, pixels=self.pixels.pin_memory(), tokens=self.tokens.pin_memory())


def config(model: str) -> dict[str, Any]:
    """The architecture's configuration.

    Raises:
        RequestError: open_clip does not know it, or the folder holds none.
    """
    if Path(model).is_dir():
        file = Path(model) / CONFIG
        if not file.exists():
            raise RequestError(f"features.clip.model: {model} holds no {CONFIG}")
        return json.loads(file.read_text())["model_cfg"]
    import open_clip

    found = open_clip.get_model_config(model)
    if found is None:
        raise RequestError(f"features.clip.model: open_clip knows no architecture {model!r}, and it is no folder")
    return found


@cache
def load(model: str, pretrained: str, device: str | None = None) -> Model:
    """The model in evaluation mode on the GPU if there is one, else the CPU; once per process.

    Weights are read as safetensors or with torch's weights-only loader: no code in a checkpoint runs.
    """
    import open_clip
    import torch

    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    tag = None if Path(model).is_dir() else pretrained
    network = open_clip.create_model(_name(model), pretrained=tag, device=where, weights_only=True)
    return Model(network.eval(), where, dict(network.visual.preprocess_cfg))


@cache
def tokenizer(model: str) -> Callable[[list[str]], Any]:
    """The tokenizer of an architecture or a folder: texts to int64 (texts, context)."""
    import open_clip

    own = {"bpe_path": str(merges)} if (merges := Path(model) / MERGES).is_file() else {}
    return open_clip.get_tokenizer(_name(model), **own)


@cache
def _squeeze(preprocess: tuple[tuple[str, Any], ...]) -> Callable[[Image.Image], Image.Image]:
    """open_clip's transform of a decoded image without its last two steps, which `encode` does on the device."""
    from open_clip.transform import Compose, PreprocessCfg, image_transform_v2

    return Compose(image_transform_v2(PreprocessCfg(**dict(preprocess)), is_train=False).transforms[:-2])


def input_side(preprocess: dict[str, Any]) -> int:
    """The longer side, in pixels, of the images that a model takes."""
    size = preprocess["size"]
    return max(size) if isinstance(size, list | tuple) else size


def prepare(
    model: str, preprocess: dict[str, Any], images: list[Image.Image | None], texts: list[str | None]
) -> Inputs:
    """Resize, crop and tokenize; needs no weights, so any process can do it."""
    import torch

    frozen = tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in preprocess.items())
    squeezed = [np.asarray(_squeeze(frozen)(image)) for image in images if image is not None]
    words = [text for text in texts if text is not None]
    pixels = np.stack(squeezed).transpose(0, 3, 1, 2) if squeezed else np.zeros((0, 3, 1, 1), np.uint8)
    return Inputs(
        torch.from_numpy(np.ascontiguousarray(pixels)),
        tokenizer(model)(words) if words else torch.zeros((0, 1), dtype=torch.int64),
        np.array([image is not None for image in images], bool),
        np.array([text is not None for text in texts], bool),
    )


def encode(model: Model, inputs: Inputs, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of images and of texts: float32 (samples, size) each, zeros where there is none."""
    import torch

    half = model.device.type == "cuda"
    with _one_thread(), torch.inference_mode(), torch.autocast(model.device.type, torch.float16, enabled=half):
        seen = read = None
        if len(inputs.pixels):
            pixels = inputs.pixels.to(model.device, non_blocking=True).float().div_(255)
            mean, std = (
                torch.tensor(model.preprocess[name], device=model.device).view(-1, 1, 1) for name in ("mean", "std")
            )
            seen = model.network.encode_image((pixels - mean) / std)
        if len(inputs.tokens):
            read = _encode_text(model, inputs.tokens)
    return _spread(seen, inputs.has_image, size), _spread(read, inputs.has_text, size)


def _encode_text(model: Model, tokens: Any) -> Any:
    """Text embeddings, not yet of unit length or already so: float (texts, size).

    In a text tower whose words see only what stands before them, what follows the last word of the longest text
    changes nothing, so it is not computed: captions of 15 words fill a fifth of the 77 places.
    """
    import torch

    network = model.network
    moved = tokens.to(model.device, non_blocking=True)
    if not _sees_only_before(network):
        return network.encode_text(moved)
    places = int(tokens.argmax(dim=1).max()) + 1  # the end of a text has the highest number
    cut = {
        "positional_embedding": network.positional_embedding[:places],
        "attn_mask": network.attn_mask[:places, :places],
    }
    return torch.func.functional_call(network, cut, kwargs={"text": moved[:, :places]})[1]


def _sees_only_before(network: Any) -> bool:
    """Whether it is open_clip's plain CLIP with causal attention, which reads a text at its end."""
    import open_clip
    import torch

    if type(network) is not open_clip.CLIP or network.text_pool_type != "argmax" or network.output_dict:
        return False
    mask = network.attn_mask
    return mask is not None and bool(torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1)))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """On a CPU there is a process per core already, and sums must not depend on how many threads share them."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _spread(vectors: Any, real: np.ndarray, size: int) -> np.ndarray:
    import torch

    out = np.zeros((len(real), size), np.float32)
    if vectors is not None:
        out[real] = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
    return out


@cache
def weights_digest(model: str, pretrained: str) -> str:
    """SHA-256 over the weights that `load` would use; downloads those of a tag.

    Raises:
        RequestError: there are none of that name, or they cannot be downloaded.
    """
    if Path(model).is_dir():
        files = sorted(f for f in Path(model).iterdir() if f.suffix in {".json", ".safetensors", ".bin", ".pt"})
        return hashlib.sha256("".join(file_sha256(f) for f in files).encode()).hexdigest()
    config(model)  # says so if there is no such architecture
    if Path(pretrained).is_file():
        return file_sha256(pretrained)
    from open_clip import pretrained as tags

    known = tags.get_pretrained_cfg(model, pretrained)
    if not known:
        choices = ", ".join(tags.list_pretrained_tags_by_model(model)) or "none"
        raise RequestError(
            f"features.clip.pretrained: {pretrained!r} is neither a file nor a tag of {model} (tags: {choices})"
        )
    try:
        return file_sha256(tags.download_pretrained(known))
    except Exception as error:  # any of a hub's many network errors
        raise RequestError(
            f"features.clip: the weights {model}/{pretrained} cannot be downloaded ({type(error).__name__}); "
            "give `model: FOLDER` of a checkpoint made by `curate train`, or `pretrained: FILE`"
        ) from error


def _name(model: str) -> str:
    return f"local-dir:{model}" if Path(model).is_dir() else model
