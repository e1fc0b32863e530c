from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.features.batch import Batch
from curate.features.minhash import Minhash
from curate.shards import Sample
from filters._shingles import jaccard, normalised
from filters.near_duplicate_captions import NearDuplicateCaptions, near_captions
from tests.conftest import shared_data
from tests.filters.conftest import Judge


def rows(*captions: str) -> list[dict]:
    batch = Batch("0.tar", [Sample("k", 0, 0, text=caption) for caption in captions])
    signed = Minhash().measure(batch)["minhash"].to_pylist()
    return [
        {"caption": c, "minhash": m, "clip_score": n} for n, (c, m) in enumerate(zip(captions, signed, strict=True))
    ]


def test_boilerplate_goes_and_a_few_copies_stay(judge: Judge) -> None:
    captions = ["Click to enlarge", "click to enlarge!", "CLICK TO ENLARGE", "click  to enlarge."]
    captions += ["a red boat on the lake at dawn", "a red boat on the lake at dawn.", "something else entirely here"]
    dropped = judge(NearDuplicateCaptions(max_copies=1, boilerplate=4), rows(*captions))
    said = "boilerplate: 4 samples share the caption 'Click to enlarge'"
    assert [dropped[f"u{n:03d}"] for n in range(4)] == [(said, None)] * 4
    assert dropped["u005"] == ("caption nearly equals that of a kept sample: 'a red boat on the lake at dawn'", "u004")
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
    assert jaccard(texts, left, right) == pytest.approx(expected)


@pytest.mark.shared_data
def test_recall_on_human_captions_with_small_edits() -> None:
    captions = [c for row in pq.read_table(shared_data("captioned.parquet"))["captions"].to_pylist() for c in row]
    random = np.random.default_rng(0)
    for caption in list(captions):
        words = caption.split()
        words[random.integers(len(words))] = "blue"
        captions.append(" ".join(words))
    texts = normalised(pa.array(captions)).dictionary_encode().dictionary.to_pylist()
    signed = np.array([row["minhash"] for row in rows(*texts)], np.uint32)
    left, right, _ = near_captions(signed, texts, 0.8)
    found = set(zip(left.tolist(), right.tolist(), strict=True))
    originals = [(texts.index(normalised(pa.array([captions[n]]))[0].as_py()),
                  texts.index(normalised(pa.array([captions[n + 2500]]))[0].as_py())) for n in range(2500)]  # fmt: skip
    planted = [(min(p), max(p)) for p in originals if p[0] != p[1]]
    truth = jaccard(texts, *np.array(planted).T)
    wanted = {pair for pair, j in zip(planted, truth, strict=True) if j >= 0.8}
    assert len(wanted) > 300
    assert len(wanted & found) / len(wanted) >= 0.98
