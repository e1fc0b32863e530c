"""One reading of selection.parquet, batch by batch: examples of every verdict, and the reasons counted."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.report.reasons import Groups

KEPT = ""
"""Stands for the kept where samples are told apart by the filter that dropped them."""
BATCH = 1 << 15
_COLUMNS = ("uid", "shard", "key", "filter", "reason", "duplicate_of")
_SCATTER = np.random.Generator(np.random.PCG64(20)).integers(1, 1 << 63, 64, np.uint64) | np.uint64(1)


@dataclass(frozen=True)
class Verdict:
    """A row of the selection, and where its sample lies: the row-th of its shard, from 0."""

    uid: str
    shard: str
    row: int
    key: str
    filter: str | None
    reason: str | None
    duplicate_of: str | None

    @property
    def kept(self) -> bool:
        return self.filter is None


@dataclass
class Ledger:
    """What a report needs of the selection."""

    examples: dict[str, list[Verdict]]
    """Filter name, or KEPT, to samples."""
    reasons: dict[str, list[tuple[str, int]]]
    """Filter name to its grouped reasons with their counts, the most frequent first."""
    survivors: dict[str, Verdict] = field(default_factory=dict)
    """Of the examples that are duplicates: the uid they duplicate to that sample."""


def slices(path: str, columns: Sequence[str]) -> Iterator[tuple[str, int, pa.RecordBatch]]:
    """Read a selection in order, in pieces of one shard: its name, the piece's first row in it, and the piece."""
    shard, row = "", 0
    wanted = list(dict.fromkeys(["shard", *columns]))
    for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH, columns=wanted):
        names = batch["shard"].dictionary_encode()
        cuts = np.flatnonzero(np.diff(names.indices.to_numpy())) + 1
        for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(batch)], strict=True):
            name = batch["shard"][start].as_py()
            shard, row = (shard, row) if name == shard else (name, 0)
            yield shard, row, batch.slice(start, stop - start)
            row += stop - start


def read_ledger(path: str, dropped_examples: int, kept_examples: int) -> Ledger:
    """Count reasons and pick examples, spread over the reasons of a filter; memory does not grow with the rows.

    The choice is by a hash of the uid: the same samples for the same verdicts, whatever their order.
    """
    groups: dict[str, Groups] = {}
    picks: dict[tuple[str, str], _Picks] = {}
    for shard, first, batch in slices(path, _COLUMNS):
        order = uid_hash(batch["uid"])
        filters = batch["filter"].fill_null(KEPT).dictionary_encode()
        for code, name in enumerate(filters.dictionary.to_pylist()):
            rows = np.flatnonzero(filters.indices.to_numpy() == code)
            if name == KEPT:
                _pick(picks, (KEPT, ""), kept_examples, batch, shard, first, rows, order)
                continue
            codes, patterns = groups.setdefault(name, Groups()).add(batch["reason"].take(pa.array(rows)))
            for number, pattern in enumerate(patterns):
                mine = rows[codes == number]
                _pick(picks, (name, pattern), dropped_examples, batch, shard, first, mine, order)
    examples = {KEPT: picks[KEPT, ""].best} if (KEPT, "") in picks else {}
    for name, found in groups.items():
        examples[name] = _in_turn([picks[name, pattern].best for pattern in found.ranked()], dropped_examples)
    chosen = [v for verdicts in examples.values() for v in verdicts]
    wanted = {verdict.duplicate_of for verdict in chosen if verdict.duplicate_of is not None}
    survivors = {v.uid: v for v in reversed(list(find(path, "uid", wanted)))}
    return Ledger(examples, {name: found.top() for name, found in groups.items()}, survivors)


def find(path: str, column: str, wanted: Collection[str]) -> Iterator[Verdict]:
    """The rows whose `column` holds one of the wanted values, in order."""
    if not wanted:
        return
    values = pa.array(sorted(wanted), pa.string())
    for shard, first, batch in slices(path, _COLUMNS):
        hits = pc.indices_nonzero(pc.is_in(batch[column], value_set=values)).to_numpy()
        yield from verdicts(batch, shard, first, hits)


def verdicts(batch: pa.RecordBatch, shard: str, first: int, rows: np.ndarray) -> list[Verdict]:
    """Some rows of a piece of the selection, as objects."""
    found = batch.take(pa.array(rows)).to_pylist()
    return [
        Verdict(r["uid"], shard, first + int(row), r["key"], r["filter"], r["reason"], r["duplicate_of"])
        for row, r in zip(rows, found, strict=True)
    ]


def uid_hash(uids: pa.Array) -> np.ndarray:
    """64 scattered bits of each text: strings without nulls (n,) to uint64 (n,).

    A sum over its bytes, each times a constant of its place (Carter and Wegman 1979), which numpy does for
    a whole column at once.
    """
    large = uids.cast(pa.large_string())
    offsets = np.frombuffer(large.buffers()[1], np.int64)[large.offset : large.offset + len(large) + 1]
    if offsets[-1] == offsets[0]:
        return np.zeros(len(uids), np.uint64)
    data = np.frombuffer(large.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].astype(np.uint64)
    lengths = np.diff(offsets)
    place = np.arange(len(data)) - np.repeat(offsets[:-1] - offsets[0], lengths)
    sums = np.concatenate([[0], np.cumsum((data + 1) * _SCATTER[place % len(_SCATTER)], dtype=np.uint64)])
    ends = offsets - offsets[0]
    total = sums[ends[1:]].astype(np.uint64) - sums[ends[:-1]].astype(np.uint64)
    total ^= total >> np.uint64(32)
    total *= np.uint64(0x9E3779B97F4A7C15)
    return total ^ (total >> np.uint64(29))


@dataclass
class _Picks:
    """The samples with the smallest hashes so far, in their order."""

    hashes: list[int] = field(default_factory=list)
    best: list[Verdict] = field(default_factory=list)


def _pick(
    picks: dict[tuple[str, str], _Picks],
    group: tuple[str, str],
    limit: int,
    batch: pa.RecordBatch,
    shard: str,
    first: int,
    rows: np.ndarray,
    order: np.ndarray,
) -> None:
    """Keep the `limit` samples with the smallest hashes of those of a group seen so far."""
    mine = picks.setdefault(group, _Picks())
    if len(mine.hashes) == limit:
        rows = rows[order[rows] < mine.hashes[-1]] if limit else rows[:0]
    rows = rows[np.argsort(order[rows], kind="stable")[:limit]]
    if not len(rows):
        return
    merged = [*zip(mine.hashes, mine.best, strict=True)]
    merged += zip(order[rows].tolist(), verdicts(batch, shard, first, rows), strict=True)
    merged = sorted(merged, key=lambda pair: (pair[0], pair[1].shard, pair[1].row))[:limit]
    mine.hashes, mine.best = [pair[0] for pair in merged], [pair[1] for pair in merged]


def _in_turn(groups: list[list[Verdict]], limit: int) -> list[Verdict]:
    """One sample of each group, then a second of each, and so on; given back group by group."""
    taken = [0] * len(groups)
    while sum(taken) < limit and any(n < len(group) for n, group in zip(taken, groups, strict=True)):
        for place, group in enumerate(groups):
            if taken[place] < len(group) and sum(taken) < limit:
                taken[place] += 1
    return [verdict for n, group in zip(taken, groups, strict=True) for verdict in group[:n]]
