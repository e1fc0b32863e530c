"""Byte ranges are copied whole and in order, whatever lies between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import copying
from curate.copying import Sink, copy_ranges
from curate.errors import WorkError

DATA = np.random.default_rng(0).integers(0, 256, 3 << 20, np.uint8).tobytes()


def copied(source: Path, ranges: list[tuple[int, int]]) -> bytes:
    target = source.with_suffix(".out")
    with source.open("rb", buffering=0) as file, target.open("wb", buffering=0) as out:
        sink = Sink(out)
        pairs = np.array(ranges, np.int64).reshape(-1, 2)
        copy_ranges(file, sink, pairs[:, 0], pairs[:, 1])
    found = target.read_bytes()
    assert sink.size == len(found) and sink.digest == xxhash.xxh3_128(found).hexdigest()
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("copy") / "source"
    file.write_bytes(DATA)
    return file


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(0, 300_000)), max_size=12))
def test_any_ranges(source: Path, steps: list[tuple[int, int]]) -> None:
    ranges, at = [], 0
    for hole, length in steps:
        if at + hole + length <= len(DATA):
            ranges.append((at + hole, length))
            at += hole + length
    assert copied(source, ranges) == b"".join(DATA[a : a + n] for a, n in ranges)


def test_small_ranges_with_small_holes_between(source: Path) -> None:
    ranges = [(at, 700) for at in range(512, len(DATA) - 1024, 1024)]
    assert copied(source, ranges) == b"".join(DATA[a : a + n] for a, n in ranges)


def test_a_range_longer_than_a_span(source: Path) -> None:
    assert copied(source, [(3, len(DATA) - 5)]) == DATA[3:-2]
    assert len(DATA) > 2 * copying.SPAN


def test_a_file_that_became_shorter_is_said(source: Path) -> None:
    with pytest.raises(WorkError, match="ended while it was copied"):
        copied(source, [(len(DATA) - 10, 20)])


def test_more_ranges_than_one_call_takes(source: Path) -> None:
    ranges = [(at, 8) for at in range(0, 64_000, 16)]
    assert copied(source, ranges) == b"".join(DATA[a : a + n] for a, n in ranges)
