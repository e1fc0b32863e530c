"""Captions as numbered words: what repeats in them is counted for a whole table at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters._shingles import in_steps, mix, normalised

_HASH_BITS = 40  # enough to tell the runs of one text apart
_NO_SPACES = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"


@dataclass(frozen=True)
class Words:
    """The words of n texts in lower case, without punctuation, text after text."""

    codes: np.ndarray
    """int64 (words,): each word's place in `vocabulary`."""
    bounds: np.ndarray
    """int64 (n + 1,)"""
    vocabulary: pa.Array
    """Each word once."""

    @property
    def owner(self) -> np.ndarray:
        """Which text each word is of: int64 (words,)."""
        return np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))

    def text(self, first: int, last: int) -> str:
        """The words from one place to before another, as a text."""
        return " ".join(self.vocabulary.take(pa.array(self.codes[first:last])).to_pylist())


def words_of(texts: pa.Array | pa.ChunkedArray) -> Words:
    """Split texts into words; in scripts without spaces every character is one. A null has no words."""
    whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    plain = normalised(whole.cast(pa.string()))
    apart = pc.utf8_trim_whitespace(pc.replace_substring_regex(plain, _NO_SPACES, r" \1 "))
    lists = pc.utf8_split_whitespace(apart)
    counts = np.diff(lists.offsets.to_numpy())
    counts[pc.equal(pc.binary_length(apart), 0).to_numpy(zero_copy_only=False)] = 0  # one empty word otherwise
    flat = lists.flatten()
    flat = flat.filter(pc.greater(pc.binary_length(flat), 0))
    coded = flat.dictionary_encode()
    return Words(coded.indices.to_numpy().astype(np.int64), np.append(0, np.cumsum(counts)), coded.dictionary)


def ngrams(words: Words, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every run of `size` words of each text.

    Returns:
        64-bit hashes (runs,), where in `words` each begins (runs,), and which text it is of (runs,).
    """
    counts = np.maximum(np.diff(words.bounds) - size + 1, 0)
    places, _ = in_steps(words.bounds[:-1], counts, 1)
    hashes = np.zeros(len(places), np.uint64)
    for step in range(size):
        hashes = mix(hashes + words.codes[places + step].astype(np.uint64) + np.uint64(1))
    return hashes, places, np.repeat(np.arange(len(counts)), counts)


def repeated(hashes: np.ndarray, owner: np.ndarray, texts: int) -> np.ndarray:
    """How many of each text's runs stood in it before: as `ngrams` gives them, to int64 (texts,).

    Raises:
        ValueError: there are more than 16 million texts.
    """
    if texts > 1 << (64 - _HASH_BITS):
        raise ValueError(f"{texts} texts at once are too many")
    keys = owner.astype(np.uint64) << np.uint64(_HASH_BITS) | hashes >> np.uint64(64 - _HASH_BITS)
    keys.sort()
    again = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(_HASH_BITS)
    return np.bincount(again.astype(np.int64), minlength=texts)
