"""CLIP embeddings and image-caption agreement (Radford et al. 2021; Hessel et al. 2021), through open_clip."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.errors import RequestError
from curate.features.batch import Batch
from curate.features.contract import Feature
from curate.hashing import file_sha256

CONFIG = "open_clip_config.json"


class Clip(Feature):
    """`clip_image`, `clip_text` (float16, unit length) and `clip_score`: their cosine, -1 to 1.

    `model` is an open_clip architecture or a folder that holds `open_clip_config.json` and its weights,
    as the bundled trainer writes it; `pretrained` is an open_clip tag or a checkpoint file for the former.
    """

    name: ClassVar = "clip"
    version: ClassVar = 1
    needs: ClassVar = ("image", "text")
    model: str = "ViT-B-32"
    pretrained: str = "datacomp_xl_s13b_b90k"

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        return ("clip_image", "clip_text", "clip_score")

    def arrow_schema(self) -> pa.Schema:
        vector = pa.list_(pa.float16(), config(self.model)["embed_dim"])
        return pa.schema({"clip_image": vector, "clip_text": vector, "clip_score": pa.float32()})

    def weights_digest(self) -> str:
        return _weights_digest(self.model, self.pretrained)

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        import torch

        model, transform, tokenize, device = load(self.model, self.pretrained)
        images = batch.images(max(_sides(self.model)), "RGB")
        has_image = np.array([image is not None for image in images], bool)
        has_text = np.array([text is not None for text in batch.texts], bool)
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"),
        ):
            pixels = [transform(image) for image in images if image is not None]
            seen = _unit(model.encode_image(torch.stack(pixels).to(device))) if pixels else None
            texts = [text for text in batch.texts if text is not None]
            read = _unit(model.encode_text(tokenize(texts).to(device))) if texts else None
        size = config(self.model)["embed_dim"]
        image_vectors, text_vectors = _spread(seen, has_image, size), _spread(read, has_text, size)
        score = (image_vectors * text_vectors).sum(axis=1)
        return {
            "clip_image": _vectors(image_vectors, has_image),
            "clip_text": _vectors(text_vectors, has_text),
            "clip_score": pa.array(score, pa.float32(), mask=~(has_image & has_text)),
        }


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
def load(model: str, pretrained: str) -> tuple[Any, Any, Any, Any]:
    """The model in evaluation mode, its image transform, its tokenizer and its device; once per process."""
    import open_clip
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = f"local-dir:{model}" if Path(model).is_dir() else model
    tag = None if Path(model).is_dir() else pretrained
    if device.type == "cpu":
        torch.set_num_threads(1)  # a process per core, and sums that do not depend on how many there are
    loaded, _, transform = open_clip.create_model_and_transforms(name, pretrained=tag, device=device)
    return loaded.eval(), transform, open_clip.get_tokenizer(name), device


def _sides(model: str) -> tuple[int, int]:
    size = config(model)["vision_cfg"].get("image_size", 224)
    return (size, size) if isinstance(size, int) else tuple(size)


@cache
def _weights_digest(model: str, pretrained: str) -> str:
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
            f"features.clip: the weights {model}/{pretrained} cannot be downloaded "
            f"({type(error).__name__}); give `model: FOLDER` of a checkpoint made by `curate train`, "
            "or `pretrained: FILE`"
        ) from error


def _unit(vectors: Any) -> np.ndarray:
    import torch

    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()


def _spread(vectors: np.ndarray | None, real: np.ndarray, size: int) -> np.ndarray:
    """Put the vectors of the real rows in their places, zeros elsewhere: float32 (n, size)."""
    out = np.zeros((len(real), size), np.float32)
    if vectors is not None:
        out[real] = vectors
    return out


def _vectors(values: np.ndarray, real: np.ndarray) -> pa.Array:
    flat = pa.array(values.astype(np.float16).ravel(), pa.float16())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(~real))
