"""SHA-256 of the image's bytes: equal means the same file."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa

from curate.features.batch import Batch
from curate.features.contract import Feature


class Sha256(Feature):
    """`sha256`: 64 lower-case hex digits."""

    name: ClassVar = "sha256"
    version: ClassVar = 1
    needs: ClassVar = ("bytes",)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"sha256": pa.string()})

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        return {"sha256": pa.array([d.hex() if d else None for d in batch.digests], pa.string())}
