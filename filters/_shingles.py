"""Captions as sets of short pieces: what MinHash signs and what verifies a candidate pair."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CHARACTERS = 5


def normalised(texts: pa.Array) -> pa.Array:
    """Lower-case, compatibility forms folded, runs of anything but letters and digits made one space.

    >>> normalised(pa.array(["Click  to\\nENLARGE!"])).to_pylist()
    ['click to enlarge']
    """
    folded = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKC"))
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(folded, r"[^\pL\pM\pN]+", " "))


def shingles(texts: list[str], characters: int = CHARACTERS) -> tuple[np.ndarray, np.ndarray]:
    """Hash every run of `characters` code points of non-empty texts; a shorter text is one run.

    Returns the 32-bit hashes as uint64 (total,), text after text, and where each text starts (n,).
    """
    points = [np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32) for text in texts]
    padded = [np.pad(p, (0, max(0, characters - len(p)))) for p in points]
    lengths = np.array([len(p) for p in padded], np.int64)
    line = np.concatenate(padded).astype(np.uint64) if padded else np.zeros(0, np.uint64)
    hashes = np.zeros(max(len(line) - characters + 1, 0), np.uint64)
    for place in range(characters):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + line[place : place + len(hashes)] + np.uint64(1)
    inside = np.ones(len(hashes), bool)  # runs that cross from one text into the next do not count
    ends = np.cumsum(lengths)
    for back in range(1, characters):
        inside[ends[:-1] - back] = False
    starts = np.cumsum(lengths - characters + 1) - (lengths - characters + 1)
    return mix(hashes[inside]) >> np.uint64(32), starts


def mix(values: np.ndarray) -> np.ndarray:
    """Scatter uint64 values over all 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def jaccard(texts: list[str], left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Exact Jaccard similarity of the shingle sets of pairs of texts: positions (pairs,) to float64 (pairs,)."""
    hashes, starts = shingles(texts)
    owner = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(np.append(starts, len(hashes))))
    members = np.unique(owner << np.uint64(32) | hashes)  # each text's set, sorted
    bounds = np.searchsorted(members, np.arange(len(texts) + 1, dtype=np.uint64) << np.uint64(32))
    sizes = np.diff(bounds)
    out = np.empty(len(left))
    for first in range(0, len(left), 1 << 16):
        block = slice(first, first + (1 << 16))
        out[block] = _jaccard(members, bounds, sizes, left[block], right[block])
    return out


def _jaccard(
    members: np.ndarray, bounds: np.ndarray, sizes: np.ndarray, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """Intersections by sorting: within a pair, a hash that both sides hold stands twice."""
    sides = []
    for side in (left, right):
        lengths = sizes[side]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        values = members[np.repeat(bounds[side], lengths) + within] & np.uint64(0xFFFFFFFF)
        sides.append(np.repeat(np.arange(len(side), dtype=np.uint64), lengths) << np.uint64(32) | values)
    merged = np.sort(np.concatenate(sides))
    twice = merged[1:][merged[1:] == merged[:-1]]
    shared = np.bincount((twice >> np.uint64(32)).astype(np.int64), minlength=len(left))
    return shared / (sizes[left] + sizes[right] - shared)
