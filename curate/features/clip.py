"""CLIP embeddings and image-caption agreement (Radford et al. 2021; Hessel et al. 2021), through open_clip."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate import openclip
from curate.features.batch import Batch
from curate.features.contract import Feature


class Clip(Feature):
    """`clip_image`, `clip_text` (float16, unit length) and `clip_score`: their cosine, -1 to 1.

    `model` is an open_clip architecture or a folder that holds `open_clip_config.json` and its weights,
    as the bundled trainer writes it; `pretrained` is an open_clip tag or a checkpoint file for the former.
    """

    name: ClassVar = "clip"
    version: ClassVar = 2
    needs: ClassVar = ("image", "text")
    gpu: ClassVar = True
    model: str = "ViT-B-32"
    pretrained: str = "datacomp_xl_s13b_b90k"

    def columns(self) -> tuple[str, ...]:
        return ("clip_image", "clip_text", "clip_score")

    def arrow_schema(self) -> pa.Schema:
        vector = pa.list_(pa.float16(), self._size)
        return pa.schema({"clip_image": vector, "clip_text": vector, "clip_score": pa.float32()})

    def weights_digest(self) -> str:
        return openclip.weights_digest(self.model, self.pretrained)

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        model = self.load()
        return self.encode(model, self.prepare(batch, model.preprocess))

    def load(self, device: str | None = None) -> openclip.Model:
        """The model, which `encode` needs and `prepare` does not."""
        return openclip.load(self.model, self.pretrained, device)

    def prepare(self, batch: Batch, preprocess: dict[str, Any]) -> openclip.Inputs:
        """Decode, resize and tokenize a batch: the part of `measure` for any process."""
        return openclip.prepare(
            self.model, preprocess, batch.images(openclip.input_side(preprocess), "RGB"), batch.texts
        )

    def encode(self, model: openclip.Model, inputs: openclip.Inputs) -> dict[str, pa.Array]:
        """Run the model on a prepared batch: the part of `measure` for the process that holds the GPU."""
        images, texts = openclip.encode(model, inputs, self._size)
        has_both = inputs.has_image & inputs.has_text
        return {
            "clip_image": _vectors(images, inputs.has_image),
            "clip_text": _vectors(texts, inputs.has_text),
            "clip_score": pa.array((images * texts).sum(axis=1), pa.float32(), mask=~has_both),
        }

    @property
    def _size(self) -> int:
        return openclip.config(self.model)["embed_dim"]


def _vectors(values: np.ndarray, real: np.ndarray) -> pa.Array:
    flat = pa.array(values.astype(np.float16).ravel(), pa.float16())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(~real))
