"""How much an image resembles a target set's."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.errors import RequestError, WorkError
from curate.features.contract import GlobalFeature, Known
from filters._vectors import nearest, unit
from filters.contract import Paths


class Normsim(GlobalFeature):
    """`normsim` (Wang et al. 2024, arXiv:2405.19547): the p-norm of an image's cosines to all images of a target set.

    `p` is 2, how much of it lies in the directions of the target set, or `inf`, the cosine to the nearest. `target`
    names the sets: folders of shards, `.parquet` files with the embedding's column, `.npy` files of embeddings.
    """

    name: ClassVar = "normsim"
    version: ClassVar = 1
    gpu: ClassVar = True
    target: Paths = Field([])
    p: Literal[2, "inf"] = 2
    column: str = "clip_image"

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.target)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"normsim": pa.float32()})

    def fit_with(self, rows: pa.Table, known: Known) -> dict[str, np.ndarray]:
        vectors = target_vectors(known, self.column, "features.normsim.target")
        if self.p == "inf":
            return {"vectors": vectors.astype(np.float16)}
        wide = vectors.astype(np.float64)
        return {"moments": (wide.T @ wide).astype(np.float32)}  # the sum of squares is x' (sum t t') x

    def apply(self, artifact: dict[str, np.ndarray], rows: pa.Table) -> dict[str, pa.Array]:
        real = rows[self.column].is_valid().to_numpy()
        norm = np.zeros(len(rows), np.float32)
        if real.any():
            vectors = unit(pc.drop_null(rows[self.column]))
            against = artifact["vectors" if self.p == "inf" else "moments"].astype(np.float32)
            if vectors.shape[1] != against.shape[1]:
                raise WorkError(
                    f"features.normsim: embeddings of {against.shape[1]} numbers in `target`, and {self.column} has "
                    f"{vectors.shape[1]}; use the same model for both"
                )
            if self.p == "inf":
                norm[real] = np.maximum(nearest(vectors, against)[0], nearest(-vectors, against)[0])
            else:
                norm[real] = np.sqrt(np.maximum(((vectors @ against) * vectors).sum(axis=1), 0))
        return {"normsim": pa.array(norm.round(5), pa.float32(), mask=~real)}


def target_vectors(known: Known, column: str, field: str) -> np.ndarray:
    """The embeddings of all target sets, float32 (n, d), of unit length.

    Raises:
        RequestError: there are none, or of different models; names the `field`.
    """
    parts = [t[column].combine_chunks().drop_null() for t in known.targets.values() if column in t.column_names]
    vectors = [unit(part) for part in parts if len(part)]
    if not vectors:
        raise RequestError(f"{field}: name a target set that has {column}")
    if len({v.shape[1] for v in vectors}) > 1:
        raise RequestError(f"{field}: its sets have embeddings of different lengths; use one model for all")
    return np.concatenate(vectors)
