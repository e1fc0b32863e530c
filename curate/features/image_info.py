"""What an image's header says; no pixel is read."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa

from curate.features.batch import Batch
from curate.features.contract import Feature


class ImageInfo(Feature):
    """`width` and `height` in pixels as stored, `format` (JPEG, PNG, ...) and Pillow's `mode` (RGB, L, ...)."""

    name: ClassVar = "image_info"
    version: ClassVar = 1
    needs: ClassVar = ("header",)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema(
            {"width": pa.int32(), "height": pa.int32(), "format": pa.string(), "mode": pa.string()},
        )

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        opened = [batch.open(position) for position in range(len(batch))]
        return {
            "width": pa.array([i.width if i else None for i in opened], pa.int32()),
            "height": pa.array([i.height if i else None for i in opened], pa.int32()),
            "format": pa.array([i.format if i else None for i in opened], pa.string()),
            "mode": pa.array([i.mode if i else None for i in opened], pa.string()),
        }
