from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from curate.features.batch import Batch
from curate.features.minhash import Minhash
from curate.shards import Sample
from filters._shingles import jaccard
from filters.near_duplicate_captions import NearDuplicateCaptions
from tests.filters.conftest import Judge


def rows(*captions: str | None) -> list[dict]:
    batch = Batch("0.tar", [Sample("k", 0, 0, text=caption) for caption in captions])
    signed = pa.table(Minhash().measure(batch)).to_pylist()
    return [{"caption": c, "clip_score": n} | s for n, (c, s) in enumerate(zip(captions, signed, strict=True))]


def test_boilerplate_goes_and_a_few_copies_stay(judge: Judge) -> None:
    captions = ["Click to enlarge", "click to enlarge!", "CLICK TO ENLARGE", "click  to enlarge."]
    captions += ["a red boat on the lake at dawn", "a red boat on the lake at dawn.", "something else entirely here"]
    dropped = judge(NearDuplicateCaptions(max_copies=1, boilerplate=4), rows(*captions))
    said = "boilerplate: 4 samples >= 4 share the caption 'Click to enlarge'"
    assert [dropped[f"u{n:03d}"] for n in range(4)] == [(said, None)] * 4
    assert dropped["u005"] == (
        "caption like a kept sample's: Jaccard 1.000 >= 0.800, 'a red boat on the lake at dawn'",
        "u004",
    )
    assert len(dropped) == 5
    assert judge(NearDuplicateCaptions(max_copies=None, boilerplate=None), rows(*captions)) == {}


def test_the_best_scored_copy_stays(judge: Judge) -> None:
    captions = ["a red boat on the lake at dawn"] * 3
    dropped = judge(NearDuplicateCaptions(keep="highest_clip_score"), rows(*captions))
    assert set(dropped) == {"u000", "u001"} and {of for _, of in dropped.values()} == {"u002"}


def test_jaccard_is_exact() -> None:
    texts = ["abcdefgh", "abcdefgx", "abcdefgh abcdefgh", "zz"]
    pairs = list(itertools.combinations(range(4), 2))
    left, right = np.array(pairs).T
    sets = [{t[i : i + 5] for i in range(max(1, len(t) - 4))} for t in texts]
    expected = [len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in pairs]
    assert jaccard(pa.array(texts), left, right) == pytest.approx(expected)
