from __future__ import annotations

import itertools

import ibis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.features.batch import Batch
from curate.features.minhash import Minhash
from curate.shards import Sample
from filters._lsh import SMALL, band_keys, banding, candidates, may_be_alike, most_bits, sketches
from filters._shingles import jaccard, normalised
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


def test_boilerplate_is_a_count_a_share_or_the_larger_of_both() -> None:
    assert NearDuplicateCaptions(boilerplate=50).bound(10**7) == 50
    assert NearDuplicateCaptions(boilerplate=50, boilerplate_share=0.0001).bound(1000) == 50
    assert NearDuplicateCaptions(boilerplate=50, boilerplate_share=0.0001).bound(10**7) == 1000
    assert NearDuplicateCaptions(boilerplate=None, boilerplate_share=0.01).bound(250) == 3
    assert NearDuplicateCaptions(boilerplate=None, boilerplate_share=0.01).bound(1) == 2
    assert NearDuplicateCaptions(boilerplate=None).bound(10**9) == float("inf")
    for wrong in ({"boilerplate": 1}, {"boilerplate_share": 0}, {"boilerplate_share": 1.1}):
        with pytest.raises(ValueError, match="boilerplate"):
            NearDuplicateCaptions(**wrong)


def test_a_share_of_the_pool_counts_near_copies(judge: Judge) -> None:
    templates = [f"product image {n} of a fine wooden table with four chairs" for n in range(10, 20)]
    captions = [*templates, *(f"{word} {n * 37} stands alone" for n, word in enumerate("abcdefghij"))]
    dropped = judge(NearDuplicateCaptions(min_jaccard=0.7, boilerplate=None, boilerplate_share=0.5), rows(*captions))
    said = "boilerplate: 10 samples >= 10 share the caption 'product image 10 of a fine wooden table with four chairs'"
    assert dropped == {f"u{n:03d}": (said, None) for n in range(10)}


def test_captions_in_any_script_and_none(judge: Judge) -> None:
    captions = [
        "一张红色小船在湖上的图片",
        "一张红色小船在湖上的图片。",
        "سفينة حمراء على البحيرة",
        "سفينة حمراء على البحيرة!",
    ]
    captions += ["🔥🔥", "🔥🔥", "", None, "photo \u200bof a dog", "Photo of a dog", "x" * 100_000, "X" * 100_000]
    dropped = judge(NearDuplicateCaptions(), rows(*captions))
    assert {uid: of for uid, (_, of) in dropped.items()} == {
        "u001": "u000", "u003": "u002", "u009": "u008", "u011": "u010",
    }  # fmt: skip
    assert all(len(reason) < 150 for reason, _ in dropped.values())


@given(st.lists(st.text("ab ", min_size=4, max_size=14), max_size=24), st.sampled_from([0.5, 0.8, 1.0]))
@settings(max_examples=25, deadline=None)
def test_who_stays_is_like_no_other_that_stays(captions: list[str], min_jaccard: float) -> None:
    """On few captions every pair is in a small bucket: what LSH sees is decided as by comparing all."""
    table = ibis.memtable(pa.table({"row": range(len(captions)), "uid": [f"{n:03d}" for n in range(len(captions))],
                                    **columns(captions)}))  # fmt: skip
    found = {r["row"]: r for r in NearDuplicateCaptions(min_jaccard=min_jaccard).drops(table).to_pyarrow().to_pylist()}
    texts = normalised(pa.array(captions, pa.string()))
    for row, verdict in found.items():
        survivor = int(verdict["duplicate_of"])
        assert survivor < row and survivor not in found
        assert jaccard(texts, np.array([row]), np.array([survivor]))[0] >= min_jaccard


def columns(captions: list[str]) -> dict[str, pa.Array]:
    signed = Minhash().measure(Batch("0.tar", [Sample("k", 0, 0, text=caption) for caption in captions]))
    return {"caption": pa.array(captions, pa.string()), **signed}


@pytest.mark.parametrize("min_jaccard", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_bands_miss_few_pairs_at_the_bound(min_jaccard: float) -> None:
    bands, length = banding(128, min_jaccard)
    assert bands * length <= 128 and (1 - min_jaccard**length) ** bands <= 0.005
    random = np.random.default_rng(1)
    left = random.integers(0, 2**16, (2000, 128), dtype=np.uint16)
    right = np.where(random.random(left.shape) < min_jaccard, left, random.integers(0, 2**16, left.shape))
    keys = [band_keys(side.astype(np.uint16), bands, length) for side in (left, right)]
    assert (keys[0] == keys[1]).any(axis=1).mean() > 0.985


@given(st.lists(st.none() | st.text(st.characters(max_codepoint=0x7F), max_size=12), max_size=6))
def test_ascii_is_normalised_alike_in_any_company(texts: list[str | None]) -> None:
    alone, among = normalised(pa.array(texts, pa.string())), normalised(pa.array([*texts, "É"]))
    assert [*alone.to_pylist(), "é"] == among.to_pylist()


@pytest.mark.parametrize("permutations", [16, 80, 128])
@pytest.mark.parametrize("min_jaccard", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_sketches_let_pairs_at_the_bound_pass_and_few_others(min_jaccard: float, permutations: int) -> None:
    random = np.random.default_rng(2)
    left, other = random.integers(0, 2**16, (2, 50_000, permutations), dtype=np.uint16)
    right = np.where(random.random(left.shape) < min_jaccard, left, other)
    pairs = np.arange(len(left), dtype=np.uint64) << np.uint64(32) | np.arange(len(left), dtype=np.uint64)
    pairs += np.uint64(len(left))
    most = most_bits(permutations, min_jaccard)
    bound = sketches(np.concatenate([left, right])).T.copy()
    assert may_be_alike(bound, pairs, most).all()
    if permutations == 128 and min_jaccard >= 0.8:
        assert may_be_alike(sketches(np.concatenate([left, other])).T.copy(), pairs, most).mean() < 1e-5


def test_a_caption_without_a_signature_passes(judge: Judge) -> None:
    given = rows(*["a red boat on the lake at dawn"] * 4, *["click to enlarge"] * 3)
    for number in (0, 5, 6):
        given[number]["minhash"] = None
    dropped = judge(NearDuplicateCaptions(), given)
    assert {uid: of for uid, (_, of) in dropped.items()} == {"u002": "u001", "u003": "u001"}


@given(st.lists(st.integers(0, 5), max_size=60), st.lists(st.integers(0, 3), max_size=60))
def test_all_pairs_of_small_buckets_are_candidates(first: list[int], second: list[int]) -> None:
    count = min(len(first), len(second), 2 * SMALL + 1)
    keys = np.array([first[:count], second[:count]], np.uint32)
    found = {(int(pair >> np.uint64(32)), int(pair & np.uint64(0xFFFFFFFF))) for pair in candidates(keys)}
    alike = [(a, b) for a, b in itertools.combinations(range(count), 2) if (keys[:, a] == keys[:, b]).any()]
    assert found == set(alike)


def test_a_large_bucket_hangs_together_at_its_best() -> None:
    found = candidates(np.zeros((3, 1000), np.uint32))
    assert len(found) < 6000
    assert set(range(1, 1000)) <= {int(pair) for pair in found[found >> np.uint64(32) == 0]}
