"""What is remembered of captions, and which of those remembered a new one could be compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from filters._columns import Keys, Tally, Texts, Values
from filters._lsh import SMALL
from filters._memory import MOST_ROWS, Past, Run

NEVER = 0
"""The bound that a group reached: none so far."""
EVERY = np.full(1, -1)
"""The key of the tally that counts every sample."""
_FIRST = 2 * SMALL + 1


class Earlier(NamedTuple):
    """Distinct captions of earlier samples, by preference: those that new ones could be like, and their leaders."""

    number: np.ndarray  # int64 (m,): their numbers among all that are remembered
    key: np.ndarray  # uint64 (m,): caption_key
    keys: np.ndarray  # uint32 (bands, m)
    sketches: np.ndarray  # uint64 (words, m)
    leader: np.ndarray  # int64 (m,): the place among these of the one that each is like, or its own
    alike: np.ndarray  # float64 (m,): how alike they are
    caption: pa.Array
    uid: pa.Array
    size: np.ndarray  # int64 (m,): samples in the group that each leads
    bound: np.ndarray  # int64 (m,): the bound that its group reached as boilerplate, or `NEVER`
    samples: int  # that came to the filter in all

    @property
    def leads(self) -> np.ndarray:
        return self.leader == np.arange(len(self.leader))


def nothing(bands: int, words: int) -> Earlier:
    """No earlier captions."""
    none, texts = np.zeros(0, np.int64), pa.array([], pa.large_string())
    keys, sketches = np.zeros((bands, 0), np.uint32), np.zeros((words, 0), np.uint64)
    return Earlier(none, none.astype(np.uint64), keys, sketches, none, np.zeros(0), texts, texts, none, none, 0)


def earlier(past: Past, key: np.ndarray, keys: np.ndarray, words: int) -> Earlier:
    """Those that could be like new captions, given their `caption_key` (n,) and band keys, uint32 (bands, n)."""
    if not past.runs:
        return nothing(len(keys), words)
    _, same = past.ends("caption_key", np.unique(key), 1)
    # In a bucket an item is compared with all before it, or with the first few and the one before it.
    _, near = past.ends("band_key", np.unique(_with_band(keys)), _FIRST, 1)
    number = np.union1d(same, near)
    if not len(number):
        return nothing(len(keys), words)._replace(samples=int(past.tally("groups", EVERY, 2)[0, 0]))
    number = np.union1d(number, past.values("leader", number))
    tally = past.tally("groups", number, 2)
    return Earlier(
        number, past.values("key", number), past.values("keys", number).T, past.values("sketch", number).T,
        np.searchsorted(number, past.values("leader", number)), past.values("alike", number),
        past.texts("caption", number), past.texts("uid", number), tally[:, 0], tally[:, 1],
        int(past.tally("groups", EVERY, 2)[0, 0]),
    )  # fmt: skip


class Fresh(NamedTuple):
    """New distinct captions (n,), by preference, as in `Earlier`; `leader` is numbered among all remembered."""

    key: np.ndarray
    keys: np.ndarray
    sketches: np.ndarray
    leader: np.ndarray
    alike: np.ndarray
    caption: pa.Array
    uid: pa.Array


def caption_runs(fresh: Fresh, groups: Tally, first: int) -> Iterator[Run]:
    """The runs that remember new captions; what was counted of their groups is in the first."""
    for start in range(0, max(len(fresh.key), 1), MOST_ROWS):
        part = slice(start, start + MOST_ROWS)
        keys = fresh.keys[:, part]
        rows = np.tile(np.arange(keys.shape[1], dtype=np.int32), len(keys))
        columns = {
            "caption_key": Keys.of(fresh.key[part]), "band_key": Keys.of(_with_band(keys), rows),
            "key": Values([fresh.key[part]]), "keys": Values([np.ascontiguousarray(keys.T)]),
            "sketch": Values([np.ascontiguousarray(fresh.sketches[:, part].T)]),
            "leader": Values([fresh.leader[part]]), "alike": Values([fresh.alike[part]]),
            "caption": Texts.of(fresh.caption[part]), "uid": Texts.of(fresh.uid[part]), "groups": groups,
        }  # fmt: skip
        yield Run(first + start, keys.shape[1], columns)
        groups = Tally(groups.key[:0], groups.counted[:0])


def _with_band(keys: np.ndarray) -> np.ndarray:
    """Band keys, uint32 (bands, n), with the band's number before them: uint64 (bands x n,)."""
    band = np.arange(len(keys), dtype=np.uint64)[:, None] << np.uint64(32)
    return (band | keys.astype(np.uint64)).ravel()
