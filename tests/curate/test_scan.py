"""A scan reads what a query asks for, when it is asked for, and filters as SQL does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curate.engines import scan as module
from curate.engines.local import LocalEngine
from curate.engines.scan import Scan

SHARDS, ROWS = 60, 500
TYPES = pa.schema({"row": pa.int64(), "score": pa.float32(), "name": pa.string(), "vector": pa.list_(pa.uint64(), 64)})


class Reads:
    """Stands for the cache: remembers what was read of which shard."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, tuple[str, ...]]] = []

    def __call__(self, shard: int, columns: Sequence[str]) -> pa.Table:
        self.seen.append((shard, tuple(columns)))
        score = np.arange(ROWS, dtype=np.float32) / ROWS
        score[0] = np.nan
        values = {"score": score, "name": [f"{shard}-{n}" for n in range(ROWS)]}
        vector = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(ROWS * 64, np.uint64)), 64)
        return pa.table({name: vector if name == "vector" else pa.array(values[name]) for name in columns})


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    found = Reads()
    monkeypatch.setattr(module, "read_features", found)
    return found


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    opened = LocalEngine(2)
    yield opened
    opened.close()


def scan(alive: np.ndarray | None = None) -> Scan:
    tasks: Any = range(SHARDS)
    return Scan(tasks, np.arange(SHARDS + 1) * ROWS, alive, TYPES)


def test_only_the_columns_of_a_query_are_read(reads: Reads, engine: LocalEngine) -> None:
    t = engine.view(scan())
    assert t.count().to_pyarrow().as_py() == SHARDS * ROWS
    assert reads.seen == []
    assert len(t.filter(t.name == "7-3").select("row").to_pyarrow()) == 1
    assert {columns for _, columns in reads.seen} == {("name",)}


def test_narrow_columns_are_read_once(reads: Reads, engine: LocalEngine) -> None:
    t = engine.view(scan())
    for _ in range(3):
        assert t.select("name", "row").to_pyarrow()["name"][0].as_py().endswith("-0")
    assert len(reads.seen) == SHARDS


def test_shards_without_anyone_alive_are_not_read(reads: Reads, engine: LocalEngine) -> None:
    alive = np.zeros(SHARDS * ROWS, bool)
    alive[7 * ROWS + 3] = True
    rows = engine.view(scan(alive)).select("row", "name").to_pyarrow().to_pylist()
    assert rows == [{"row": (7 << 32) + 3, "name": "7-3"}]
    assert [shard for shard, _ in reads.seen] == [7]


def test_a_slow_reader_is_not_run_ahead_of(reads: Reads, engine: LocalEngine) -> None:
    t = engine.view(scan())
    batches = iter(t.filter(t.vector.notnull()).select("row", "vector").to_pyarrow_batches(chunk_size=2048))
    next(batches)
    time.sleep(0.3)
    assert len(reads.seen) < SHARDS // 2
    assert 2048 + sum(len(batch) for batch in batches) >= SHARDS * ROWS


def test_nan_is_above_every_number(reads: Reads, engine: LocalEngine) -> None:
    t = engine.view(scan())
    kept = engine.keep(t)
    for condition in (lambda t: t.score > 0.9, lambda t: t.score < 0.1, lambda t: t.score >= 2, lambda t: t.score <= 2):
        assert set(t.filter(condition(t)).row.to_pyarrow().to_pylist()) == set(
            kept.filter(condition(kept)).row.to_pyarrow().to_pylist()
        )
    assert len(t.filter(t.score > 2).row.to_pyarrow()) == SHARDS
