"""The caption and its simple counts."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curate.features.batch import Batch
from curate.features.contract import Feature


class Caption(Feature):
    """`caption`, its `caption_length` in characters, `caption_words`, and `caption_alpha`: its share of letters.

    Words are runs between white space; the share is of the characters that are not white space, 0 to 1.
    """

    name: ClassVar = "caption"
    version: ClassVar = 1
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
        text = pa.array(batch.texts, pa.string())
        letters = pc.utf8_length(pc.replace_substring_regex(text, r"\PL+", ""))
        visible = pc.utf8_length(pc.replace_substring_regex(text, r"\s+", ""))
        share = pc.divide(letters.cast(pa.float32()), pc.max_element_wise(visible, 1).cast(pa.float32()))
        return {
            "caption": text,
            "caption_length": pc.utf8_length(text),
            "caption_words": _words(text),
            "caption_alpha": pc.if_else(pc.is_valid(text), share, None),
        }


def _words(text: pa.Array) -> pa.Array:
    """How many runs there are between white space of any script: as many as `str.split` finds."""
    trimmed = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(trimmed, ""), 0, pc.list_value_length(pc.utf8_split_whitespace(trimmed)))
