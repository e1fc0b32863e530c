"""Small heads on CLIP's image embeddings: aesthetic, watermark, safety or any other score, as many as are given."""

from __future__ import annotations

import hashlib
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from curate.errors import RequestError
from curate.features.contract import GlobalFeature
from curate.hashing import file_sha256
from curate.heads import Layers, embeddings, read_layers, run_layers


class ClipHeads(GlobalFeature):
    """One column per head, float: `heads: {aesthetic: aesthetic.safetensors, watermark: watermark.npz}` gives the
    columns `aesthetic` and `watermark`, which any filter can read, for example `score`.

    A head is a linear layer or several with ReLU between them (`relu: false` for those trained without, as
    LAION's aesthetic predictors are), in a file of safetensors, NumPy (.npz) or PyTorch (.pt, .pth, .ckpt, read as
    weights only). `sigmoid` names the heads whose output is a log odds, to get a probability. Heads must be those
    of the CLIP model that made `clip_image`; a wrong width is refused.
    """

    name: ClassVar = "clip_heads"
    version: ClassVar = 1
    heads: dict[str, str] = {}
    relu: bool = False
    sigmoid: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _known(self) -> Self:
        if unknown := sorted(set(self.sigmoid) - set(self.heads)):
            raise ValueError(f"sigmoid names {', '.join(unknown)}, which heads does not")
        if odd := [column for column in self.heads if not column.isidentifier()]:
            raise ValueError(f"heads: {odd[0]!r} cannot be a column; use letters, digits and _")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return ("clip_image",)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({column: pa.float32() for column in self.heads})

    def weights_digest(self) -> str:
        """SHA-256 over the heads' files.

        Raises:
            RequestError: one of them cannot be read; names it.
        """
        digests = []
        for column, file in self.heads.items():
            self._layers(column, file)
            digests.append(f"{column} {file_sha256(file)}")
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def fit(self, rows: pa.Table) -> dict[str, np.ndarray]:
        """The heads' own weights: so they are part of the artifact, and no worker needs the files."""
        size = rows.schema.field("clip_image").type.list_size
        arrays: dict[str, np.ndarray] = {}
        for column, file in self.heads.items():
            layers = self._layers(column, file)
            if (wanted := layers[0][0].shape[1]) != size:
                raise RequestError(
                    f"features.clip_heads.heads.{column}: {file} takes vectors of {wanted} numbers, and the CLIP model "
                    f"gives {size}; set features.clip to the model that the head was trained on"
                )
            for n, (weight, bias) in enumerate(layers):
                arrays |= {f"{column}.{n:02d}.weight": weight, f"{column}.{n:02d}.bias": bias}
        return arrays

    def apply(self, artifact: dict[str, np.ndarray], rows: pa.Table) -> dict[str, pa.Array]:
        images, real = embeddings(rows["clip_image"])
        found = {}
        for column in self.heads:
            names = sorted(name.removesuffix(".weight") for name in artifact if name.startswith(f"{column}."))
            names = [name for name in names if not name.endswith(".bias")]
            layers = [(artifact[f"{name}.weight"], artifact[f"{name}.bias"]) for name in names]
            scores = run_layers(layers, images, self.relu)
            if column in self.sigmoid:
                scores = (1 + np.tanh(scores / 2)) / 2  # which no score overflows
            found[column] = pa.array(scores.round(5).astype(np.float32), mask=~real)
        return found

    def _layers(self, column: str, file: str) -> Layers:
        return read_layers(file, f"features.clip_heads.heads.{column}")
