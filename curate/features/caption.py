"""The caption and its simple counts."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa

from curate.features.batch import Batch
from curate.features.contract import Feature
from filters._characters import LETTER, SPACE, classes, code_points, per_text, text_array


class Caption(Feature):
    """`caption`, its `caption_length` in characters, `caption_words`, and `caption_alpha`: its share of letters.

    Words are runs between white space; the share is of the characters that are not white space, 0 to 1.
    """

    name: ClassVar = "caption"
    version: ClassVar = 2
    needs: ClassVar = ("text",)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema(
            {
                "caption": pa.string(),
                "caption_length": pa.int32(),
                "caption_words": pa.int32(),
                "caption_alpha": pa.float32(),
            }
        )

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        text = text_array(batch.texts)
        points, bounds = code_points(text)
        kind = classes(points)
        visible = (kind & SPACE) == 0
        begins = visible.copy()
        begins[1:] &= ~visible[:-1]
        filled = bounds[:-1][bounds[:-1] < bounds[1:]]
        begins[filled] = visible[filled]
        letters = per_text((kind & LETTER) != 0, bounds).astype(np.float32)
        share = letters / np.maximum(per_text(visible, bounds), 1).astype(np.float32)
        missing = text.is_null().to_numpy(zero_copy_only=False)
        return {
            "caption": text,
            "caption_length": pa.array(np.diff(bounds), pa.int32(), mask=missing),
            "caption_words": pa.array(per_text(begins, bounds), pa.int32(), mask=missing),
            "caption_alpha": pa.array(share, pa.float32(), mask=missing),
        }
