"""MinHash signatures: the share of equal values estimates the Jaccard similarity of two captions."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import Field

from curate.features.batch import Batch
from curate.features.contract import Feature
from filters._characters import text_array
from filters._shingles import CHARACTERS, in_steps, mix, normalised, shingles

_BITS = 16
_ROUND = 16  # shingles of each text gathered at once
_EMPTY = np.uint64(xxhash.xxh3_64_intdigest(b"")).astype(np.int64)
_TEXTS = 64  # texts signed at once: with a round's rows, 0.5 MiB for 128 permutations


class Minhash(Feature):
    """`minhash`: `permutations` uint16 values, over the set of `characters`-long pieces of the caption, and
    `caption_key`: a 64-bit hash of the normalised caption, equal for captions that differ in case,
    punctuation and white space only.

    Broder, "On the resemblance and containment of documents" (1997), with the circulant permutations of Li
    and Li, "C-MinHash" (ICML 2022): unbiased too, with a standard error not above that of independent ones.
    Characters rather than words, so that languages without spaces work too. A caption shorter than one
    piece is one piece; null where nothing is left of the caption.
    """

    name: ClassVar = "minhash"
    version: ClassVar = 2
    needs: ClassVar = ("text",)
    permutations: int = Field(128, ge=16, le=1024, multiple_of=16)
    characters: int = Field(CHARACTERS, ge=1, le=32)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"minhash": pa.list_(pa.uint16(), self.permutations), "caption_key": pa.int64()})

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        texts = normalised(text_array(batch.texts))
        keys = _keys(texts)
        _, first, item = np.unique(keys, return_index=True, return_inverse=True)
        if len(first) < len(keys):
            texts = texts.take(pa.array(first))
        values = signatures(*shingles(texts, self.characters, _ROUND), self.permutations)
        if len(first) < len(keys):
            values = values[item]
        empty = keys == _EMPTY
        flat, mask = pa.array(values.ravel(), pa.uint16()), pa.array(empty) if empty.any() else None
        return {
            "minhash": pa.FixedSizeListArray.from_arrays(flat, self.permutations, mask=mask),
            "caption_key": pa.array(keys, mask=empty),
        }


def signatures(hashes: np.ndarray, bounds: np.ndarray, permutations: int) -> np.ndarray:
    """Smallest value of each text's shingles under each permutation: uint16 (n, permutations).

    Args:
        hashes: of the shingles, uint32 (total,); the upper 16 bits are the shingle's place, which makes
            shared places of different shingles rare for captions: one in 1,400 with 46 pieces each.
        bounds: where each text's shingles lie (n + 1,); a text without any gets 65535 throughout.

    The k-th permutation of a place is the entry k places on in a circle of all 16-bit numbers in random
    order, so a place's values under all permutations are one run of memory.
    """
    windows = _windows(permutations)
    counts = np.diff(bounds)
    if (counts % _ROUND).any():  # repeating a text's last one changes no minimum
        places, bounds = in_steps(bounds[:-1], counts, _ROUND)
        hashes = hashes[places]
    places = (hashes >> np.uint32(32 - _BITS)).astype(np.int64).reshape(-1, _ROUND)
    rounds, begins = np.diff(bounds) // _ROUND, bounds[:-1] // _ROUND
    order = np.argsort(-rounds, kind="stable")
    rounds, begins = rounds[order], begins[order]
    out = np.full((len(counts), permutations), (1 << _BITS) - 1, np.uint16)
    for start in range(0, len(order), _TEXTS):
        part = slice(start, start + _TEXTS)
        begin = begins[part]
        least = np.full((len(begin), permutations), (1 << _BITS) - 1, np.uint16)
        # Longest first: how many have shingles left in each round.
        lives = np.searchsorted(-rounds[part], -np.arange(rounds[start])).tolist()
        for number, live in enumerate(lives):
            mine = np.ascontiguousarray(places[begin[:live] + number].T)
            rows = windows[mine].view(np.uint16).reshape(_ROUND, live, permutations)
            np.minimum(least[:live], np.minimum.reduce(rows, axis=0), out=least[:live])
        out[order[part]] = least
    return out


@cache
def _windows(permutations: int) -> np.ndarray:
    """Every run of `permutations` entries of the circle, one item each (65536,), over 128 KiB of memory."""
    size = 1 << _BITS
    circle = np.argsort(mix(np.arange(size, dtype=np.uint64)), kind="stable").astype(np.uint16)
    circle = np.append(circle, circle[:permutations])
    return np.ndarray((size,), f"V{2 * permutations}", circle, strides=(2,))


def _keys(texts: pa.Array) -> np.ndarray:
    """XXH3 of each text: int64 (n,)."""
    _, places, data = texts.buffers()
    bounds = np.frombuffer(places, np.int32)[: len(texts) + 1].tolist()
    view = memoryview(data or b"")
    keys = [xxhash.xxh3_64_intdigest(view[a:b]) for a, b in pairwise(bounds)]
    return np.array(keys, np.uint64).view(np.int64)
