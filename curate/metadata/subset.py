"""Subsets: the kept uids as DataComp's training and resharding scripts read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from curate.storage import Folder
from filters._uids import UID, parse_uids, sort_uids


def kept_uids(path: str) -> np.ndarray | None:
    """The kept uids of a selection, sorted, `UID` (kept,); None if one of them is not 32 hex digits."""
    parts = [np.zeros(0, UID)]
    for batch in pq.ParquetFile(path).iter_batches(columns=["uid", "keep"]):
        uids, valid = parse_uids(batch["uid"].filter(batch["keep"]))
        if not valid.all():
            return None
        parts.append(uids)
    return sort_uids(np.concatenate(parts))


def write_subset(out: Folder, selection: str, name: str) -> int | None:
    """Write the kept uids of a selection beside it; returns how many, or None where their form does not allow it."""
    with out.local_copy(selection) as path:
        uids = kept_uids(path)
    if uids is None:
        if out.exists(name):
            out.fs.rm_file(out.path(name))  # of another selection
        return None
    save_subset(out, name, uids)
    return len(uids)


def save_subset(out: Folder, name: str, uids: np.ndarray) -> None:
    """Write sorted uids as a `.npy` file of dtype 'u8,u8'."""
    with out.writing(name) as part, Path(part).open("wb") as file:
        np.save(file, uids, allow_pickle=False)
