"""Keep a random part of what is left: the control arm of every comparison."""

from __future__ import annotations

from typing import Self

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import xxhash
from pydantic import Field, model_validator

from filters._uids import parse_uids
from filters.contract import VERDICTS, PoolFilter


class RandomSubset(PoolFilter):
    """Keep `count` samples, or `keep_fraction` of those that come in (rounded to the nearest), drawn by a hash of uid
    and `seed`: the same ones whatever the order of the pool. A filter that keeps as many must do better than this
    (DataComp's random subset, Gadre et al. 2023, arXiv:2304.14108).
    """

    keep_fraction: float | None = Field(None, gt=0, le=1)
    count: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0, lt=1 << 63)

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.keep_fraction is None) == (self.count is None):
            raise ValueError("give keep_fraction or count, one of them")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return ("uid",)

    def drops(self, t: ir.Table) -> pa.Table:
        places, rows = list[np.ndarray](), list[np.ndarray]()
        for batch in t.select("row", "uid").to_pyarrow_batches():
            places.append(places_of(batch["uid"], self.seed))
            rows.append(batch["row"].to_numpy())
        place, row = np.concatenate([np.empty(0, np.uint64), *places]), np.concatenate([np.empty(0, np.int64), *rows])
        kept = min(len(row), self.count if self.count else round((self.keep_fraction or 0) * len(row)))
        out = row[np.argsort(place, kind="stable")[kept:]]
        reason = pa.array([f"not among the {kept:,} drawn of {len(row):,}, seed {self.seed}"])
        reasons = pa.chunked_array([reason.take(pa.array(np.zeros(len(out), np.int8)))])
        return pa.table([pa.array(out), reasons, pa.nulls(len(out), pa.string())], schema=VERDICTS)


def places_of(uids: pa.Array, seed: int) -> np.ndarray:
    """A random number for each uid and seed, uint64 (n,): SplitMix64's finalizer (Steele et al. 2014) of the uid."""
    pairs, valid = parse_uids(uids)
    bits = pairs["f0"] ^ (pairs["f1"] * np.uint64(0x9E3779B97F4A7C15))
    others = np.flatnonzero(~valid)
    bits[others] = [xxhash.xxh3_64_intdigest((uid or "").encode()) for uid in uids.take(pa.array(others)).to_pylist()]
    bits += np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % (1 << 64))
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
