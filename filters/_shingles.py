"""Captions as sets of short pieces: what MinHash signs and what verifies a candidate pair."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters._characters import HIDDEN, WORD, classes, code_points, from_code_points

CHARACTERS = 5
_AT_ONCE = 1 << 22  # characters of the pairs compared at once: some 16 MiB an array
_STEP = 8  # sets are held in multiples of as many hashes


def normalised(texts: pa.Array) -> pa.Array:
    """Lower-case, compatibility forms folded, runs of anything but letters, marks and digits made one space.

    Characters without a shape of their own (zero-width joiners, soft hyphens) go without leaving a space.
    A null becomes an empty text.

    >>> normalised(pa.array(["Click  to\\nENLARGE!"])).to_pylist()
    ['click to enlarge']
    """
    points, bounds = code_points(texts)
    if points.dtype == np.uint8:  # ASCII has nothing to fold
        points = np.frombuffer(points.tobytes().lower(), np.uint8)
    else:
        # Lower-case on both sides: folding makes new capitals (℃), and small letters compose where capitals do not.
        points, bounds = code_points(pc.utf8_lower(pc.utf8_normalize(pc.utf8_lower(texts), form="NFKC")))
    kind = classes(points)
    if points.dtype != np.uint8 and (hidden := (kind & HIDDEN) != 0).any():
        points, kind = points[~hidden], kind[~hidden]
        bounds = bounds - np.append(0, np.cumsum(hidden))[bounds]
    word = (kind & WORD) != 0
    kept = _words_and_single_spaces(word, bounds)
    line = np.where(word, points, points.dtype.type(ord(" ")))[kept]
    return from_code_points(line, np.append(0, np.cumsum(kept))[bounds])


def _words_and_single_spaces(word: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Of flags of word characters (total,), those and one place before each word that follows another in its text."""
    kept = word.copy()
    kept[:-1] |= word[1:]
    filled = bounds[:-1] < bounds[1:]
    first, last = bounds[:-1][filled], bounds[1:][filled] - 1
    kept[last] = word[last]
    leading, ends = first[~word[first]], last[~word[first]] + 1
    if len(leading):
        places = np.append(np.flatnonzero(word), len(word))
        begins = places[np.searchsorted(places, leading)]
        kept[begins[begins < ends] - 1] = False
    return kept


def shingles(texts: pa.Array, characters: int = CHARACTERS, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Hash every run of `characters` code points of each text; a shorter text is one run, an empty one none.

    Returns:
        The hashes, uint32 (total,), text after text, and their bounds (n + 1,). Each text's last hash is repeated
        until their number is a multiple of `step`.
    """
    points, bounds = code_points(texts)
    lengths = np.diff(bounds)
    counts = np.where(lengths > 0, np.maximum(lengths - characters + 1, 1), 0)
    # Texts on one line with a gap behind each, so that a run that reaches over the end of a short text meets zeros.
    gap = characters - 1
    line = np.zeros(len(points) + gap * (len(lengths) + 1), np.uint32)
    line[np.arange(len(points)) + np.repeat(gap * np.arange(len(lengths)), lengths)] = points
    hashes = line[: len(line) - gap].copy()
    for place in range(1, characters):
        hashes *= np.uint32(0x9E3779B1)
        hashes += line[place : len(line) - gap + place]
    places, ends = in_steps(bounds[:-1] + gap * np.arange(len(lengths)), counts, step)
    return _mix32(hashes[places]), ends


def in_steps(starts: np.ndarray, counts: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of runs (n,), one run after the other, and their bounds (n + 1,).

    Each run's last place is repeated until their number is a multiple of `step`.
    """
    full = -(-counts // step) * step
    ends = np.append(0, np.cumsum(full))
    places = np.arange(ends[-1]) - np.repeat(ends[:-1], full)
    if step > 1:
        np.minimum(places, np.repeat(counts - 1, full), out=places)
    places += np.repeat(starts, full)
    return places, ends


def _mix32(values: np.ndarray) -> np.ndarray:
    """Scatter uint32 values over all 32 bits, in place; a bijection (the finaliser of MurmurHash3, Appleby 2011)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        values ^= values >> np.uint32(shift)
        values *= np.uint32(factor)
    values ^= values >> np.uint32(16)
    return values


def mix(values: np.ndarray) -> np.ndarray:
    """Scatter uint64 values over all 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def jaccard(texts: pa.Array, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Exact Jaccard similarity of the shingle sets of pairs of normalised texts, in memory that is bounded.

    Args:
        texts: n texts, none of them null or empty.
        left, right: positions (pairs,).

    Returns:
        float64 (pairs,).
    """
    length = pc.utf8_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    work = np.cumsum(length[left] + length[right])
    seen = np.empty(len(texts), np.int64)
    out = np.empty(len(left))
    first = 0
    while first < len(left):
        spent = work[first - 1] if first else 0
        last = max(int(np.searchsorted(work, spent + _AT_ONCE, "right")), first + 1)
        both = np.concatenate([left[first:last], right[first:last]])
        seen[both] = np.arange(len(both))
        used = both[seen[both] == np.arange(len(both))]  # each text once
        seen[used] = np.arange(len(used))
        sets, ends = shingles(texts.take(pa.array(used)), step=_STEP)
        out[first:last] = _of_sets(sets, ends // _STEP, seen[left[first:last]], seen[right[first:last]])
        first = last
    return out


def _of_sets(sets: np.ndarray, bounds: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Pairs whose sets are as wide on either side are compared together: `bounds` count steps of `sets`."""
    steps = np.diff(bounds)
    shape = steps[left] << 32 | steps[right]
    order = np.argsort(shape, kind="stable")
    out = np.empty(len(left))
    cuts = np.flatnonzero(np.diff(shape[order])) + 1
    for start, stop in pairwise([0, *cuts.tolist(), len(order)]):
        widths = int(steps[left[order[start]]]) * _STEP, int(steps[right[order[start]]]) * _STEP
        at_once = max(1, _AT_ONCE // 8 // sum(widths))
        for begin in range(start, stop, at_once):
            block = order[begin : min(begin + at_once, stop)]
            rows = [_rows(sets, bounds[side[block]], w) for side, w in zip((left, right), widths, strict=True)]
            out[block] = _of_rows(*rows)
    return out


def _rows(sets: np.ndarray, starts: np.ndarray, width: int) -> np.ndarray:
    """Copy some runs of `width` hashes that begin at steps: uint32 (runs, width)."""
    runs = np.ndarray(((len(sets) - width) // _STEP + 1,), f"V{4 * width}", sets, strides=(4 * _STEP,))
    return runs[starts].view(np.uint32).reshape(len(starts), width)


def _of_rows(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Compare sets by sorting a row for each pair: a hash that both sides hold stands beside its twin.

    The lowest bit says the side, so that 31 bits tell two pieces apart: of some hundred thousand pairs, the
    similarity of one is a piece too high. Repeated hashes change nothing.
    """
    rows = np.concatenate([left & np.uint32(0xFFFFFFFE), right | np.uint32(1)], axis=1)
    rows.sort(axis=1)
    change = rows[:, 1:] ^ rows[:, :-1]
    return _count(change == 1) / (1 + _count(change > 1))


def _count(flags: np.ndarray) -> np.ndarray:
    """How many of each row are true; bytes are summed as bytes where they cannot overflow."""
    if flags.shape[1] < 256:
        return np.einsum("ij->i", flags.view(np.uint8)).astype(np.int64)
    return np.count_nonzero(flags, axis=1)
