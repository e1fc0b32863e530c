"""How varied captions are as a set: what a manifest tells of the originals and of what was written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate.recaption.words import Words, ngrams, words_of
from filters._shingles import jaccard, normalised

SAMPLE = 20_000
"""Captions that the figures are of, at most: shares of distinct words fall with the size of a set, so that sets are
compared at the same one. Those with the lowest hash, the same for the same set."""
_PAIRS = 20_000
OPENING = 4  # words


def caption_statistics(captions: pa.Array | pa.ChunkedArray) -> dict[str, Any]:
    """Figures of a set of captions; nulls do not count.

    `distinct_1` to `distinct_3`: different runs of so many words, of all runs (Li et al., "A Diversity-Promoting
    Objective Function", NAACL 2016). `vocabulary`: different words. `mean_words`. `mean_jaccard`: the mean similarity
    of two captions drawn at random, of their sets of five-character pieces. `common_opening`: the four words that
    most captions begin with, and `common_opening_share`, of all captions.
    """
    known = captions.drop_null()
    sample = _sampled(known.combine_chunks() if isinstance(known, pa.ChunkedArray) else known)
    words = words_of(sample)
    found: dict[str, Any] = {"captions": len(known), "sampled": len(sample)}
    if not len(words.codes):
        return found
    opening, share = _opening(words)
    return found | {
        "mean_words": round(len(words.codes) / len(sample), 3),
        "vocabulary": len(words.vocabulary),
        **{f"distinct_{size}": _distinct(words, size) for size in (1, 2, 3)},
        "mean_jaccard": _mean_jaccard(sample),
        "common_opening": opening,
        "common_opening_share": share,
    }


def _sampled(captions: pa.Array) -> pa.Array:
    if len(captions) <= SAMPLE:
        return captions
    hashes = [xxhash.xxh3_64_intdigest(one) for one in captions.cast(pa.binary()).to_pylist()]
    chosen = np.argsort(np.array(hashes, np.uint64), kind="stable")[:SAMPLE]
    return captions.take(pa.array(np.sort(chosen)))


def _distinct(words: Words, size: int) -> float | None:
    hashes, _, _ = ngrams(words, size)
    return round(len(np.unique(hashes)) / len(hashes), 4) if len(hashes) else None


def _opening(words: Words) -> tuple[str | None, float | None]:
    """The opening that is most common, of several the first in the alphabet, and its share of all captions."""
    hashes, places, owner = ngrams(words, OPENING)
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    if not len(first):
        return None, None
    _, example, count = np.unique(hashes[first], return_index=True, return_counts=True)
    texts = (words.text(begin, begin + OPENING) for begin in places[first[example[count == count.max()]]].tolist())
    return min(texts), round(int(count.max()) / (len(words.bounds) - 1), 4)


def _mean_jaccard(captions: pa.Array) -> float | None:
    texts = normalised(captions.cast(pa.string()))
    texts = texts.filter(pc.greater(pc.binary_length(texts), 0))
    if len(texts) < 2:
        return None
    draw = np.random.default_rng(0)
    left = draw.integers(len(texts), size=_PAIRS)
    right = (left + draw.integers(1, len(texts), size=_PAIRS)) % len(texts)
    return round(float(jaccard(texts, left, right).mean()), 4)
