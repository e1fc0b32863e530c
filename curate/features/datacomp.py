"""What DataComp's metadata says of a sample (Gadre et al. 2023): nothing is measured, no image is opened."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from curate.features.batch import Batch
from curate.features.contract import Feature
from curate.metadata.lookup import listing_digest, open_lookup
from curate.metadata.shards import SCORES, SIZES, MetadataBatch, float_column

Model = Literal["b32", "l14"]


class Datacomp(Feature):
    """`width`, `height` of the original image, `clip_score` by OpenAI's ViT-B/32 or ViT-L/14, `sha256` of the original.

    In a pool that is metadata alone they are the shard's own columns. For a pool of tars, `metadata` is the folder
    of the metadata, which is searched by uid. `clip` says whose score, and follows the recipe's `clip` feature if
    it is not given. The score is float64, so that no value or tie of the metadata changes; NaN becomes null.
    """

    name: ClassVar = "datacomp"
    version: ClassVar = 1
    needs: ClassVar = ()
    stands_in: ClassVar = True
    metadata: str | None = None
    clip: Model | None = None

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"width": pa.int32(), "height": pa.int32(), "clip_score": pa.float64(), "sha256": pa.string()})

    def weights_digest(self) -> str:
        return listing_digest(self.metadata) if self.metadata else ""

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        wanted = dict(SIZES) | ({"clip_score": SCORES[self.clip]} if self.clip else {})
        sha256 = pa.nulls(len(batch), pa.string())
        if isinstance(batch, MetadataBatch):
            assert batch.rows is not None
            present = batch.rows.column_names
            found = {c: float_column(batch.rows[c]) for c in wanted.values() if c in present}
            if "sha256" in present:
                sha256 = batch.rows["sha256"].combine_chunks().cast(pa.string())
        else:
            assert self.metadata is not None
            lookup = open_lookup(self.metadata)
            found = lookup.numbers([sample.uid for sample in batch.samples], list(wanted.values()))
        nothing = np.full(len(batch), np.nan)
        columns = {name: found.get(wanted.get(name, ""), nothing) for name in ("width", "height", "clip_score")}
        types = self.arrow_schema()
        arrays = {name: pa.array(values, mask=np.isnan(values)) for name, values in columns.items()}
        return {name: values.cast(types.field(name).type) for name, values in arrays.items()} | {"sha256": sha256}
