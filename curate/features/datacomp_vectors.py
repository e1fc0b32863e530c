"""The CLIP embeddings that lie beside DataComp's metadata, in `<id>.npz` (Gadre et al. 2023)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa

from curate.features.batch import Batch
from curate.features.contract import Feature
from curate.features.datacomp import Model
from curate.metadata.lookup import listing_digest, open_lookup
from curate.metadata.shards import MetadataBatch

SIZES = {"b32": 512, "l14": 768}


class DatacompVectors(Feature):
    """`clip_image` and `clip_text` as stored: float16, of OpenAI's ViT-B/32 (512) or ViT-L/14 (768).

    A pool of tars has them of the folder `metadata`, by uid; see `datacomp`.
    """

    name: ClassVar = "datacomp_vectors"
    version: ClassVar = 1
    needs: ClassVar = ()
    stands_in: ClassVar = True
    metadata: str | None = None
    clip: Model = "l14"

    def arrow_schema(self) -> pa.Schema:
        vector = pa.list_(pa.float16(), SIZES[self.clip])
        return pa.schema({"clip_image": vector, "clip_text": vector})

    def weights_digest(self) -> str:
        return listing_digest(self.metadata) if self.metadata else ""

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        return {
            "clip_image": self._column(batch, f"{self.clip}_img"),
            "clip_text": self._column(batch, f"{self.clip}_txt"),
        }

    def _column(self, batch: Batch, array: str) -> pa.Array:
        size = SIZES[self.clip]
        if isinstance(batch, MetadataBatch):
            vectors, real = np.zeros((len(batch), size), np.float16), np.zeros(len(batch), bool)
            if batch.npz is not None:
                vectors, real = batch.npz.rows(array, batch.start, batch.start + len(batch)), ~real
        else:
            assert self.metadata is not None
            lookup = open_lookup(self.metadata)
            vectors, real = lookup.vectors([sample.uid for sample in batch.samples], array, size)
        flat = pa.array(vectors.ravel(), pa.float16())
        return pa.FixedSizeListArray.from_arrays(flat, size, mask=pa.array(~real))
