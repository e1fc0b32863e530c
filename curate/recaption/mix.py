"""Which captions a sample gets: its own, a written one, or both with weights."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import xxhash

from curate.recaption.settings import Mix

CHOSEN, WEIGHT, TEXT, REASON = "chosen", "weight", "text", "reason"
KEPT_FAILED = "kept: no caption could be written"
KEPT_REFUSED = "kept: every written caption was refused"
KEPT_EITHER = "kept: every written caption was refused or failed"
KEPT_SCORE = "kept: no written caption has a higher score"
KEPT_DRAWN = "kept: by the ratio"


def mix(captions: pa.Table, settings: Mix, samples: int, seed: int) -> pa.Table:
    """Choose among the captions of each candidate.

    What is chosen depends on the sample's own rows, its uid and the seed alone, and a larger ratio chooses written
    captions for all samples for which a smaller one does, and more.

    Args:
        captions: judged captions, each sample's own and then its `samples` written ones.

    Returns:
        The table with `chosen` filled in, why of an own caption that is the only one chosen in `reason`, and two more
        columns: `weight`, a chosen caption's share of the draws where training draws among them (of a sample they
        sum to 1), and `text`, whether it is the one in the sample's .txt.
    """
    width = samples + 1
    written = _grid(captions["caption"].is_valid(), width)
    own = written[:, 0].copy()
    written[:, 0] = False
    passed = written & _grid(captions["check"].is_null(), width)
    score = np.nan_to_num(_grid(captions["score"].fill_null(-np.inf), width), nan=-np.inf)
    some = passed.any(axis=1)
    # A finite floor, so that a caption without a score still comes before those that did not pass.
    top = np.where(passed, np.maximum(score, -1e9), -np.inf).argmax(axis=1) if len(passed) else np.zeros(0, np.int64)
    drawn = _draw(captions["uid"].take(pa.array(np.arange(0, len(captions), width))), seed) < settings.ratio
    rows = np.arange(len(passed))
    if settings.choice == "best":
        takes = score[rows, top] > score[:, 0]
    else:
        takes = drawn if settings.choice != "replace" else np.ones(len(rows), bool)
    takes = some & (takes | ~own)
    weight = np.zeros(passed.shape)
    weight[rows, np.where(takes, top, 0)] = takes | own
    text = weight > 0
    if settings.choice == "both":
        share = np.where(own, settings.ratio, 1.0)[:, None]
        weight = np.where(some[:, None], share * passed / np.maximum(passed.sum(axis=1), 1)[:, None], weight)
        weight[:, 0] = np.where(some & own, 1 - settings.ratio, weight[:, 0])
    why = _why(written, passed, (weight[:, 0] > 0) & ((weight > 0).sum(axis=1) == 1), settings)
    reason = np.full(passed.shape, None, object)
    reason[:, 1:] = _grid(captions[REASON], width)[:, 1:]
    reason[:, 0] = why
    chosen = (weight > 0).ravel()
    captions = _with(captions, CHOSEN, pa.array(chosen))
    captions = _with(captions, REASON, pa.array(reason.ravel(), pa.string()))
    captions = captions.append_column(WEIGHT, pa.array(weight.ravel(), pa.float64(), mask=~chosen))
    return captions.append_column(TEXT, pa.array(text.ravel()))


def _why(written: np.ndarray, passed: np.ndarray, alone: np.ndarray, settings: Mix) -> np.ndarray:
    """Why an own caption is the only one chosen, object (n,): a text, or None where it is not."""
    count = passed.shape[1] - 1
    cases = [
        (~alone, None),
        (~written.any(axis=1), KEPT_FAILED),
        (~passed.any(axis=1) & (written.sum(axis=1) == count), KEPT_REFUSED),
        (~passed.any(axis=1), KEPT_EITHER),
        (np.full(len(passed), settings.choice == "best"), KEPT_SCORE),
    ]
    why = np.full(len(passed), KEPT_DRAWN, object)
    for holds, said in reversed(cases):
        why[holds] = said
    return why


def _draw(uids: pa.ChunkedArray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each uid, float64 (n,): the same on any machine."""
    data = uids.cast(pa.binary()).to_pylist()
    found = np.fromiter((xxhash.xxh3_64_intdigest(uid, seed) for uid in data), np.uint64, len(data))
    return (found >> np.uint64(11)).astype(np.float64) / 2**53


def _grid(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """A column as one row per sample: (n, width)."""
    return np.array(column.to_numpy(zero_copy_only=False)).reshape(-1, width)


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)
