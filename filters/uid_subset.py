"""Keep the samples that a list of uids names."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from filters._uids import listed, open_subset, parse_uids
from filters.contract import VERDICTS, PoolFilter


class UidSubset(PoolFilter):
    """Keep samples whose uid stands in `file`, a subset as DataComp's baselines and `curate subset` write it.

    That is a sorted `.npy` array of dtype 'u8,u8': the first and last 16 of the 32 hex digits of each uid
    (Gadre et al. 2023). The file is mapped, not read. `sha256` is the file's, and is filled in: another file
    is another recipe.
    """

    file: str = Field(min_length=1)
    sha256: str = ""

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if not Path(self.file).is_file():
            raise ValueError(f"file: no file {self.file!r}")
        open_subset(self.file)
        with Path(self.file).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if self.sha256 not in ("", digest):
            raise ValueError(f"file: {self.file} is not the one whose sha256 is {self.sha256}")
        object.__setattr__(self, "sha256", digest)
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return ("uid",)

    @property
    def compares(self) -> bool:
        return False

    def drops(self, t: ir.Table) -> pa.Table:
        subset = open_subset(self.file)
        absent = f"not among the {len(subset):,} uids of {Path(self.file).name}"
        parts = []
        for batch in t.select("row", "uid").to_pyarrow_batches():
            uids, valid = parse_uids(batch["uid"])
            out = np.flatnonzero(~(valid & listed(subset, uids)))
            reasons = pa.array([absent, f"{absent}: its uid is not 32 hex digits"])
            reason = reasons.take(pa.array((~valid[out]).astype(np.int8)))
            rows = batch["row"].take(pa.array(out))
            parts.append(pa.record_batch([rows, reason, pa.nulls(len(out), pa.string())], schema=VERDICTS))
        return pa.Table.from_batches(parts, VERDICTS)
