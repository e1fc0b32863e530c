"""MinHash signatures: the share of equal values estimates the Jaccard similarity of two captions."""

from __future__ import annotations

import sys
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.features.batch import Batch
from curate.features.contract import Feature
from filters._shingles import CHARACTERS, normalised, shingles

_ROWS = 1 << 9  # shingles hashed at once: keeps the work array in the processor's cache
_HIGH_HALF = int(sys.byteorder == "little")  # which uint32 of a uint64 holds its upper bits


class Minhash(Feature):
    """`minhash`: `permutations` uint32 values, over the set of `characters`-long pieces of the caption.

    Broder, "On the resemblance and containment of documents" (1997). Case, punctuation and white space do
    not count; characters rather than words, so that languages without spaces work too. A caption shorter
    than one piece is one piece; null where nothing is left of the caption.
    """

    name: ClassVar = "minhash"
    version: ClassVar = 1
    needs: ClassVar = ("text",)
    permutations: int = Field(128, ge=16, le=1024, multiple_of=16)
    characters: int = Field(CHARACTERS, ge=1, le=32)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"minhash": pa.list_(pa.uint32(), self.permutations)})

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        texts = normalised(pa.array(batch.texts, pa.string())).to_pylist()
        real = np.array([bool(text) for text in texts], bool)
        pieces, starts = shingles([text or " " for text in texts], self.characters)
        values = signatures(pieces, starts, self.permutations)
        flat = pa.array(values.ravel(), pa.uint32())
        return {"minhash": pa.FixedSizeListArray.from_arrays(flat, self.permutations, mask=pa.array(~real))}


def signatures(hashes: np.ndarray, starts: np.ndarray, permutations: int) -> np.ndarray:
    """Smallest hash of each text under each random function: uint32 (n, permutations).

    The functions are multiply-shift (Dietzfelbinger et al. 1997), fixed for all time by their seed.
    """
    random = np.random.Generator(np.random.PCG64(1))
    a, b = random.integers(0, 2**64, (2, permutations), dtype=np.uint64)
    a |= np.uint64(1)
    out = np.empty((len(starts), permutations), np.uint32)
    bounds = np.append(starts, len(hashes))
    first = 0
    while first < len(starts):
        last = max(int(np.searchsorted(bounds, bounds[first] + _ROWS, "right")) - 1, first + 1)
        block = hashes[bounds[first] : bounds[last], None] * a
        block += b
        high = block.view(np.uint32)[:, _HIGH_HALF::2]
        out[first:last] = np.minimum.reduceat(high, bounds[first:last] - bounds[first], axis=0)
        first = last
    return out
