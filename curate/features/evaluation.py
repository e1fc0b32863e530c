"""How near a sample's image is to those of evaluation sets."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.errors import RequestError, WorkError
from curate.features.contract import GlobalFeature, Known
from filters._hamming import NONE, nearest_hash
from filters._vectors import nearest, normalized, unit
from filters.contract import Paths

RADIUS = 15


class Evaluation(GlobalFeature):
    """`evaluation_bits`: the Hamming distance to the nearest evaluation image's phash, up to 15 bits, and that image
    as `evaluation_match`; `evaluation_cosine` and `evaluation_match_embedding`: the same by embedding.

    `against` names the evaluation sets: folders or URLs of shards, `.parquet` files with a `phash` or embedding
    column, `.npy` files of embeddings. `by` says what is compared; what is not is null. Both searches are exact.
    """

    name: ClassVar = "evaluation"
    version: ClassVar = 1
    gpu: ClassVar = True
    against: Paths = Field([])
    by: list[Literal["phash", "embedding"]] = Field(["phash"], min_length=1)
    column: str = "clip_image"

    @property
    def reads(self) -> tuple[str, ...]:
        named = {"phash": "phash", "embedding": self.column}
        return tuple(named[kind] for kind in self.by)

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.against)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema(
            {
                "evaluation_bits": pa.int32(),
                "evaluation_match": pa.string(),
                "evaluation_cosine": pa.float32(),
                "evaluation_match_embedding": pa.string(),
            }
        )

    def fit_with(self, rows: pa.Table, known: Known) -> dict[str, np.ndarray]:
        if not self.against:
            raise RequestError("features.evaluation.against: name at least one evaluation set")
        artifact: dict[str, np.ndarray] = {}
        for column in self.reads:
            parts = [t.filter(t[column].is_valid()) for t in known.targets.values() if column in t.column_names]
            if not any(len(part) for part in parts):
                raise RequestError(f"features.evaluation.against: no {column} in {', '.join(self.against)}")
            items = np.array([item for part in parts for item in part["item"].to_pylist()], np.str_)
            if column == "phash":
                hashes = np.concatenate([part[column].cast(pa.uint64()).to_numpy() for part in parts])
                unique, first = np.unique(hashes, return_index=True)
                artifact |= {"hashes": unique, "hash_items": items[first]}
            else:
                vectors = np.concatenate([unit(part[column]) for part in parts if len(part)])
                artifact |= {"vectors": vectors.astype(np.float16), "items": items}
        return artifact

    def apply(self, artifact: dict[str, np.ndarray], rows: pa.Table) -> dict[str, pa.Array]:
        columns = {field.name: pa.nulls(len(rows), field.type) for field in self.arrow_schema()}
        if "hashes" in artifact:
            real = rows["phash"].is_valid().to_numpy()
            hashes = pc.fill_null(rows["phash"], 0).cast(pa.uint64()).to_numpy()
            bits, place = nearest_hash(hashes, artifact["hashes"], RADIUS)
            found = real & (bits != NONE)
            columns["evaluation_bits"] = pa.array(bits.astype(np.int32), mask=~found)
            columns["evaluation_match"] = pa.array(artifact["hash_items"][place], pa.string(), mask=~found)
        if "vectors" in artifact:
            real = rows[self.column].is_valid().to_numpy()
            cosine, place = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.int64)
            if real.any():
                vectors = unit(pc.drop_null(rows[self.column]))
                if vectors.shape[1] != artifact["vectors"].shape[1]:
                    raise WorkError(
                        f"features.evaluation: embeddings of {artifact['vectors'].shape[1]} numbers in `against`, "
                        f"and {self.column} has {vectors.shape[1]}; use the same model for both"
                    )
                cosine[real], place[real] = nearest(vectors, normalized(artifact["vectors"]))
            columns["evaluation_cosine"] = pa.array(cosine.clip(-1, 1).round(5), mask=~real)
            columns["evaluation_match_embedding"] = pa.array(artifact["items"][place], pa.string(), mask=~real)
        return columns
