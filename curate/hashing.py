"""Digests of files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash


def facts_hash(facts: Any) -> str:
    """12 hex digits that change when any of some JSON values does."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: str | Path) -> str:
    """128-bit XXH3 of a file's bytes, in hex: tells a changed shard at the speed of reading it."""
    digest = xxhash.xxh3_128()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def uid_hashes(uids: pa.ChunkedArray) -> np.ndarray:
    """A number for each uid, uint64 (n,), even over its range: 64-bit XXH3, on any machine."""
    return np.fromiter(
        (xxhash.xxh3_64_intdigest(uid) for uid in uids.cast(pa.binary()).to_pylist()), np.uint64, len(uids)
    )
