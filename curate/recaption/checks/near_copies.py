"""Refuse all but the best of several captions of one image that say nearly the same."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.recaption.contract import REFUSED, Check
from curate.recaption.rowwise import refused, share, text
from filters._groups import runs, survivors
from filters._shingles import jaccard, normalised


class NearCopies(Check):
    """Of an image's written captions that are `min_jaccard` alike, the one with the highest score stays.

    Without scores, or with equal ones, it is the one written first. Alike is the exact Jaccard similarity of the
    sets of five-character pieces, as in the filter `near_duplicate_captions`.
    """

    name: ClassVar = "near_copies"
    min_jaccard: float = Field(0.7, gt=0, le=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("uid", "number", "caption", "score")

    def refuses(self, captions: pa.Table) -> pa.Table:
        order = pc.sort_indices(
            captions.append_column("row", pa.array(np.arange(len(captions)))),
            sort_keys=[("uid", "ascending"), ("score", "descending"), ("number", "ascending"), ("row", "ascending")],
        )  # nulls come last
        ranked = captions.take(order)
        left, right = _pairs(ranked["uid"].combine_chunks())
        if not len(left):
            return REFUSED.empty_table()
        texts = normalised(text(ranked["caption"]))
        said = pc.greater(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)
        both = said[left] & said[right]
        left, right = left[both], right[both]
        alike = jaccard(texts, left, right)
        near = alike >= self.min_jaccard
        left, right, alike = left[near], right[near], alike[near]
        better = survivors(len(ranked), left, right, 1 - alike)
        rows = np.flatnonzero(better >= 0)
        of_pair = dict(zip(zip(left.tolist(), right.tolist(), strict=True), alike, strict=True))
        value = np.array([of_pair[pair] for pair in zip(better[rows].tolist(), rows.tolist(), strict=True)])
        number = ranked["number"].take(pa.array(better[rows])).cast(pa.string()).combine_chunks()
        reason = pc.binary_join_element_wise(
            "like caption ", number, " of the same image: Jaccard ", share(value), f" >= {self.min_jaccard:g}", ""
        )
        return refused(order.take(pa.array(rows)).to_numpy().astype(np.int64), reason)


def _pairs(uids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The places of every two captions of one image, the better before the worse: equal uids lie together."""
    codes = uids.dictionary_encode().indices.to_numpy()
    place, size = runs(codes)
    pairs = [np.flatnonzero(place >= back) for back in range(1, int(size.max(initial=1)))]
    right = np.concatenate([np.zeros(0, np.int64), *pairs])
    back = np.repeat(np.arange(1, len(pairs) + 1), [len(part) for part in pairs])
    return right - back, right
