"""Why a sample was kept or dropped: its verdict, its values, and what each filter asked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import RequestError
from curate.pool import Pool
from curate.report.ledger import Verdict, find, slices, verdicts
from curate.report.measured import Measured, Step, open_measured, steps_of
from curate.report.page import SELECTION
from curate.report.pictures import Pictures
from curate.select import UNREADABLE
from curate.storage import Folder

log = logging.getLogger(__name__)
NEIGHBOURS = 50
"""Duplicates of a sample that are listed; the rest are counted."""
SAMPLES = 100
"""Samples of one uid or key that are explained."""


@dataclass(frozen=True)
class FilterAnswer:
    """What a filter said of a sample: passed, dropped or not reached; with what it asked and what it read."""

    filter: str
    answer: str
    parameters: dict[str, Any]
    values: dict[str, Any]


@dataclass(frozen=True)
class Neighbour:
    """A sample that this one duplicates, or that duplicates it."""

    uid: str
    shard: str
    key: str
    keep: bool
    filter: str | None
    reason: str | None
    caption: str | None


@dataclass(frozen=True)
class Explanation:
    """All that is known of one sample's verdict. `values` are its measured columns that the recipe reads."""

    uid: str
    shard: str
    key: str
    keep: bool
    filter: str | None
    reason: str | None
    caption: str | None
    values: dict[str, Any]
    filters: tuple[FilterAnswer, ...]
    duplicate_of: Neighbour | None
    duplicate_of_earlier: str | None
    """The uid that it duplicates, where that is none of this pool's."""
    duplicates: tuple[Neighbour, ...]
    duplicates_in_all: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def explain(out: Folder, manifest: dict[str, Any], pool: Pool, name: str) -> list[Explanation]:
    """Explain every sample of a uid, a key, or the start of one uid.

    Raises:
        RequestError: no sample goes by that name, or the start of a uid fits several.
    """
    measured, steps = open_measured(manifest, pool), steps_of(manifest)
    pictures = Pictures(measured)
    with out.local_copy(SELECTION) as path:
        found = lookup(path, name)
        if len(found) > SAMPLES:
            log.warning("more than %d samples go by %s; the first %d are explained", SAMPLES, name, SAMPLES)
            found = found[:SAMPLES]
        uids = {verdict.uid for verdict in found}
        leaders = {
            v.uid: v for v in reversed(list(find(path, "uid", {v.duplicate_of for v in found if v.duplicate_of})))
        }
        followers: dict[str, list[Verdict]] = {uid: [] for uid in uids}
        for verdict in find(path, "duplicate_of", uids):
            followers[verdict.duplicate_of or ""].append(verdict)

    def neighbour(v: Verdict) -> Neighbour:
        return Neighbour(v.uid, v.shard, v.key, v.kept, v.filter, v.reason, _caption(pictures, v))

    explanations = []
    for verdict in found:
        values = _values(measured, verdict, steps)
        leader = leaders.get(verdict.duplicate_of or "")
        mine = followers[verdict.uid]
        explanations.append(
            Explanation(
                verdict.uid, verdict.shard, verdict.key, verdict.kept, verdict.filter, verdict.reason,
                _caption(pictures, verdict), values, _answers(manifest, steps, verdict, values),
                neighbour(leader) if leader else None, None if leader else verdict.duplicate_of,
                tuple(neighbour(v) for v in mine[:NEIGHBOURS]), len(mine),
            )
        )  # fmt: skip
    return explanations


def lookup(path: str, name: str) -> list[Verdict]:
    """The samples in a selection whose uid is `name`, else whose key is, else whose uid alone begins so."""
    exact: list[Verdict] = []
    by_key: list[Verdict] = []
    by_start: list[Verdict] = []
    for shard, first, batch in slices(path, ("uid", "shard", "key", "filter", "reason", "duplicate_of")):
        for hits, rows in (
            (exact, pc.equal(batch["uid"], name)),
            (by_key, pc.equal(batch["key"], name)),
            (by_start, pc.starts_with(batch["uid"], name)),
        ):
            chosen = pc.indices_nonzero(rows).to_numpy()[: SAMPLES + 1]
            if len(hits) <= SAMPLES and len(chosen):
                hits += verdicts(batch, shard, first, chosen)
    starts = {verdict.uid for verdict in by_start}
    if exact or by_key:
        return exact or by_key
    if not by_start or not name:
        raise RequestError(f"UID: no sample has the uid or key {name!r}, nor a uid that begins so")
    if len(starts) > 1:
        some = ", ".join(sorted(starts)[:3])
        raise RequestError(f"UID: {len(starts)} or more uids begin with {name!r} ({some}, ...); give more of it")
    return by_start


def _caption(pictures: Pictures, verdict: Verdict) -> str | None:
    sample = pictures.sample(verdict)
    return sample.text if sample else None


def _values(measured: Measured, verdict: Verdict, steps: Sequence[Step]) -> dict[str, Any]:
    """The sample's scalar columns that any filter reads, by name; empty where the cache lacks them."""
    wanted = dict.fromkeys(column for step in steps for column in step.reads)
    columns = [c for c in wanted if c in measured.columns and not pa.types.is_nested(measured.columns[c])]
    table = measured.read(verdict.shard, ["uid", *(c for c in columns if c not in ("uid", "caption"))])
    if table is None or verdict.row >= len(table) or table["uid"][verdict.row].as_py() != verdict.uid:
        return {}
    row = table.slice(verdict.row, 1).to_pylist()[0]
    row.pop("uid")
    return {name: _plain(name, value) for name, value in row.items()}


def _plain(name: str, value: Any) -> Any:
    """A value as JSON has it; hashes in hex, floats without the noise of their width."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if name in ("phash", "dhash", "colorhash") and isinstance(value, int):
        return f"{value & (2**64 - 1):016x}"
    return value


def _answers(
    manifest: dict[str, Any], steps: Sequence[Step], verdict: Verdict, values: dict[str, Any]
) -> tuple[FilterAnswer, ...]:
    by_name = {step.name: step for step in steps}
    answers, answer = [], "passed"
    for stage in manifest["funnel"]:
        name = stage["filter"]
        if answer == "dropped":
            answer = "not reached"
        elif name == verdict.filter:
            answer = "dropped"
        step = by_name.get(name, Step(name, {}, None))
        read = {column: values[column] for column in step.reads if column in values}
        if name != UNREADABLE or answer == "dropped":
            answers.append(FilterAnswer(name, answer, step.parameters, read))
    return tuple(answers)
