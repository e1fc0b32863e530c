"""How kept samples are cut into shards."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from curate.write import _cut


def lengths(keys: list[str], samples_per_shard: int, piece: int) -> list[int]:
    """The sizes of the shards, the kept samples coming `piece` at a time; checks that none is lost."""
    table = pa.table(
        {"shard": np.zeros(len(keys), np.int32), "row": np.arange(len(keys), dtype=np.uint32), "key": keys}
    )
    cut = list(_cut((table.slice(n, piece) for n in range(0, len(keys), piece)), samples_per_shard))
    assert [row for _, rows in cut for row in rows.tolist()] == list(range(len(keys)))
    return [len(rows) for _, rows in cut]


@pytest.mark.parametrize("piece", [1, 3, 7, 100])
def test_full_shards_and_a_last_one(piece: int) -> None:
    assert lengths([str(n) for n in range(25)], 10, piece) == [10, 10, 5]


@pytest.mark.parametrize("piece", [1, 3, 7, 100])
def test_a_key_that_comes_twice_begins_another_shard(piece: int) -> None:
    assert lengths(list("abcabcdefg"), 5, piece) == [3, 5, 2]
    assert lengths(list("aaaa"), 5, piece) == [1, 1, 1, 1]


def test_nothing_kept_is_no_shard() -> None:
    assert lengths([], 10, 1) == []
