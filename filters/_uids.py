"""Uids as DataComp stores them: 32 hex digits as two 64-bit numbers, in sorted `.npy` files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

UID = np.dtype("u8,u8")
"""The first and the last 16 of the 32 hex digits."""
CHUNK = 1 << 20
_NIBBLE = np.full(256, 255, np.uint8)
for _place, _digit in enumerate("0123456789abcdef"):
    _NIBBLE[ord(_digit)] = _NIBBLE[ord(_digit.upper())] = _place


def parse_uids(uids: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Uids as pairs of numbers: strings (n,) to `UID` (n,), and which of them are 32 hex digits (n,)."""
    flat = uids.combine_chunks() if isinstance(uids, pa.ChunkedArray) else uids
    data = flat.cast(pa.binary())
    long = pc.fill_null(pc.equal(pc.binary_length(data), 32), False).to_numpy(zero_copy_only=False)
    out = np.zeros(len(data), UID)
    bytes_of = b"".join(data.filter(pa.array(long)).to_pylist())
    nibbles = _NIBBLE[np.frombuffer(bytes_of, np.uint8)].reshape(-1, 32)
    valid = long.copy()
    valid[long] = (nibbles < 16).all(axis=1)
    packed = (nibbles[:, 0::2] << 4 | nibbles[:, 1::2]).copy().view(">u8").astype(np.uint64)
    out["f0"][long], out["f1"][long] = packed[:, 0], packed[:, 1]
    return out, valid


def sort_uids(uids: np.ndarray) -> np.ndarray:
    """Pairs of numbers in the order that DataComp's scripts search in."""
    return uids[np.lexsort((uids["f1"], uids["f0"]))]


def open_subset(path: str | Path) -> np.ndarray:
    """A subset file, mapped and not read.

    Raises:
        ValueError: it is not a sorted `.npy` of uids; says what is wrong.
    """
    try:
        subset = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a .npy file: {error}") from error
    if not isinstance(subset, np.ndarray) or subset.dtype != UID or subset.ndim != 1:
        raise ValueError(f"{path} is not a subset of uids: one dimension of dtype 'u8,u8' is expected")
    for first in range(0, len(subset), CHUNK):
        part = subset[first : first + CHUNK + 1]
        high, low = part["f0"], part["f1"]
        if not ((high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] >= low[:-1]))).all():
            raise ValueError(f"{path} is not sorted; np.sort it first")
    return subset


def listed(subset: np.ndarray, uids: np.ndarray) -> np.ndarray:
    """Which uids (n,) stand in a sorted subset (m,): bool (n,).

    A binary search of all at once, so that a mapped subset of any size takes no memory.
    """
    if len(subset) == 0:
        return np.zeros(len(uids), bool)
    high, low = subset["f0"], subset["f1"]
    first, count = np.zeros(len(uids), np.int64), np.full(len(uids), len(subset), np.int64)
    for _ in range(len(subset).bit_length()):
        half = count // 2
        middle = np.minimum(first + half, len(subset) - 1)
        at = high[middle]
        less = (count > 0) & ((at < uids["f0"]) | ((at == uids["f0"]) & (low[middle] < uids["f1"])))
        first = np.where(less, middle + 1, first)
        count = np.where(less, count - half - 1, half)
    found = np.minimum(first, len(subset) - 1)
    return (high[found] == uids["f0"]) & (low[found] == uids["f1"])
