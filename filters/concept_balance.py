"""Even out what captions are about: common concepts are thinned, rare ones stay."""

from __future__ import annotations

import hashlib

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from filters._shingles import mix
from filters._uids import parse_uids
from filters.contract import VERDICTS, PoolFilter

LONGEST = 60
"""Characters of a concept that a reason shows."""


class ConceptBalance(PoolFilter):
    """Keep about `max_per_concept` samples of each of `concepts`; a sample that names none is dropped.

    MetaCLIP's balancing (Xu et al. 2023, algorithm 1, whose t this is): a concept that n samples name is drawn for
    each of them with probability min(1, t / n), and a sample stays if one of its concepts is drawn. The draws come
    from a hash of `seed`, uid and concept in the place of a random generator, so they do not depend on the order.
    """

    max_per_concept: int = Field(20_000, ge=1)
    seed: int = Field(0, ge=0, lt=2**32)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("concepts",)

    def drops(self, t: ir.Table) -> pa.Table:
        names, counts = _counted(t)
        chances = self.max_per_concept / np.maximum(counts, self.max_per_concept)
        hashes = np.array([_hash(name) for name in names.to_pylist()], np.uint64)
        parts = []
        for batch in t.select("row", "uid", "concepts").to_pyarrow_batches():
            column = batch["concepts"]
            lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
            owner = np.repeat(np.arange(len(batch)), lengths)
            concept = pc.index_in(column.flatten().cast(pa.string()), value_set=names).to_numpy()
            drawn = draws(uid_hashes(batch["uid"])[owner], hashes[concept], self.seed) < chances[concept]
            kept = np.bincount(owner[drawn], minlength=len(batch)) > 0
            out = np.flatnonzero(~kept)
            reason = self._reasons(out, owner, concept, lengths, names, counts)
            rows = batch["row"].take(pa.array(out))
            parts.append(pa.record_batch([rows, reason, pa.nulls(len(out), pa.string())], schema=VERDICTS))
        return pa.Table.from_batches(parts, VERDICTS)

    def _reasons(
        self, out: np.ndarray, owner: np.ndarray, concept: np.ndarray, lengths: np.ndarray, names: pa.Array,
        counts: np.ndarray,
    ) -> pa.Array:  # fmt: skip
        """Why the samples at `out` go: the rarest concept of each, which was its best chance."""
        order = np.lexsort((concept, counts[concept], owner))
        ends = np.cumsum(lengths)[out]
        named = lengths[out] > 0
        rarest = concept[order[(ends - lengths[out])[named]]]
        used, place = np.unique(rarest, return_inverse=True)
        said = [self._said(names[n].as_py(), int(counts[n])) for n in used.tolist()]
        several = pa.array(lengths[out][named]).cast(pa.string())
        rest = pc.if_else(pa.array(lengths[out][named] > 1), pc.binary_join_element_wise(
            "; the rarest of ", several, ""), "")  # fmt: skip
        full = pc.binary_join_element_wise(pa.array(said, pa.string()).take(pa.array(place)), rest, "")
        where = np.full(len(out), -1, np.int64)
        where[named] = np.arange(named.sum())
        return pc.fill_null(full.take(pa.array(where, mask=where < 0)), "names no concept of the list")

    def _said(self, name: str, count: int) -> str:
        short = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
        return f'concept "{short}": {count:,} samples, kept with probability {self.max_per_concept / count:.2g}'


def draws(uids: np.ndarray, concepts: np.ndarray, seed: int) -> np.ndarray:
    """Numbers from 0 up to 1, one for each pair of hashes: uint64 (n,) and (n,) to float64 (n,)."""
    scattered = mix(mix(uids + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)) ^ concepts)
    return (scattered >> np.uint64(11)) / float(1 << 53)


def uid_hashes(uids: pa.Array) -> np.ndarray:
    """A number for each uid: strings (n,) to uint64 (n,)."""
    halves, valid = parse_uids(uids)
    out = mix(halves["f0"] ^ mix(halves["f1"]))
    for place in np.flatnonzero(~valid).tolist():  # a pool's own uids may look otherwise
        out[place] = _hash(uids[place].as_py() or "")
    return out


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _counted(t: ir.Table) -> tuple[pa.Array, np.ndarray]:
    """The concepts that samples name, sorted, and how many samples name each: strings (k,), int64 (k,)."""
    named = t.filter(t.concepts.notnull()).select(concept=t.concepts.unnest())
    found = named.group_by("concept").agg(n=named.count()).to_pyarrow()
    found = found.take(pc.sort_indices(found["concept"]))
    return found["concept"].combine_chunks().cast(pa.string()), found["n"].to_numpy().astype(np.int64)
