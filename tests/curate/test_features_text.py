"""What the text features measure, on any words: scripts without spaces, marks, emoji, hostile captions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from datasketch import MinHash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.features.batch import Batch
from curate.features.caption import Caption
from curate.features.language import Language
from curate.features.minhash import Minhash, signatures
from curate.shards import Sample
from filters._characters import code_points, from_code_points
from filters._shingles import normalised, shingles
from tests.conftest import shared_data

FEATURES = (Caption(), Language(), Minhash())
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)  # halves of surrogate pairs too


def batch(*texts: str | None) -> Batch:
    return Batch("0.tar", [Sample("k", 0, 0, text=text) for text in texts])


def signed(*texts: str | None) -> list[list[int] | None]:
    return Minhash().measure(batch(*texts))["minhash"].to_pylist()


def plain(*texts: str) -> list[str]:
    return normalised(pa.array(texts)).to_pylist()


@pytest.mark.parametrize(
    ("texts", "same"),
    [
        (("Click to ENLARGE!", "click  to\nenlarge"), "click to enlarge"),
        (("Café", "CAFE\u0301", "cafe\u0301"), "café"),
        (("ＳＡＬＥ ５０％", "sale 50%"), "sale 50"),
        (("soft\u00adhyphen", "soft\u200bhyphen", "\ufeffsofthyphen"), "softhyphen"),
        (("I ❤️ NY", "I ❤ NY", "i 🏳️‍🌈 ny"), "i ny"),
        (("می\u200cخواهم", "میخواهم"), "میخواهم"),
        (("\u200fשלום\u200e עולם", "שלום, עולם!"), "שלום עולם"),
        (("J\u030c", "\u01f0"), "\u01f0"),
        (("一张图片。", "一张图片"), "一张图片"),
        (("", " ?!", "🔥🔥", "\u200b\u200b", "…"), ""),
    ],
)
def test_what_does_not_matter_to_a_caption(texts: tuple[str, ...], same: str) -> None:
    assert plain(*texts) == [same] * len(texts)
    keys = Minhash().measure(batch(*texts))["caption_key"].to_pylist()
    assert len(set(keys)) == 1 and (keys[0] is None) == (same == "")
    assert all(values == signed(same)[0] for values in signed(*texts))


@given(st.lists(st.none() | ANY_TEXT, max_size=8))
@settings(max_examples=60, deadline=None)
def test_text_features_take_any_text_and_do_not_depend_on_the_batch(texts: list[str | None]) -> None:
    for feature in (Caption(), Minhash()):
        whole = pa.table(feature.measure(batch(*texts)), schema=feature.arrow_schema())
        single = [pa.table(feature.measure(batch(text)), schema=feature.arrow_schema()) for text in texts]
        assert len(whole) == len(texts)
        assert not single or whole.to_pylist() == pa.concat_tables(single).to_pylist()


@given(st.lists(st.text(max_size=40), max_size=6))
@settings(max_examples=100, deadline=None)
def test_normalised_text_is_words_and_single_spaces(texts: list[str]) -> None:
    folded = pc.utf8_lower(pc.utf8_normalize(pc.utf8_lower(pa.array(texts, pa.string())), form="NFKC"))
    hidden = pc.replace_substring_regex(folded, r"[\p{Cf}\x{FE00}-\x{FE0F}\x{E0100}-\x{E01EF}\x{20E3}]", "")
    expected = pc.utf8_trim(pc.replace_substring_regex(hidden, r"[^\pL\pM\pN]+", " "), " ")
    assert normalised(pa.array(texts, pa.string())).to_pylist() == expected.to_pylist()


@given(st.lists(st.text(max_size=40), max_size=6), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_shingles_are_the_runs_of_each_text(texts: list[str], characters: int) -> None:
    hashes, bounds = shingles(pa.array(texts, pa.string()), characters)
    runs = [[t[n : n + characters] for n in range(max(1, len(t) - characters + 1))] if t else [] for t in texts]
    assert np.diff(bounds).tolist() == [len(each) for each in runs]
    assert len(set(hashes.tolist())) == len({run.rstrip("\0") for each in runs for run in each})


@given(st.lists(st.none() | st.text(max_size=30), max_size=6))
def test_code_points_and_back(texts: list[str | None]) -> None:
    array = pa.array(texts, pa.string())
    assert from_code_points(*code_points(array)).to_pylist() == [text or "" for text in texts]
    assert from_code_points(*code_points(array.slice(1))).to_pylist() == [text or "" for text in texts[1:]]


@given(st.lists(st.none() | st.text(max_size=40), max_size=6))
@example(["A\x0b", "\x0b", "a\u00a0b", "a\x1cb\x85c", "a\u200bb"])
@settings(max_examples=60, deadline=None)
def test_caption_counts(texts: list[str | None]) -> None:
    found = Caption().measure(batch(*texts))
    assert found["caption_length"].to_pylist() == [None if text is None else len(text) for text in texts]
    assert found["caption_words"].to_pylist() == [None if text is None else len(text.split()) for text in texts]
    letters = pc.count_substring_regex(pa.array(texts, pa.string()), r"\pL").to_pylist()
    visible = [sum(not c.isspace() for c in text or "") for text in texts]
    share = [None if a is None else a / max(b, 1) for a, b in zip(letters, visible, strict=True)]
    assert found["caption_alpha"].to_pylist() == pytest.approx(share)


def test_hostile_captions_cost_nothing() -> None:
    huge, half = "a photo of a boat " * 6000, "broken \ud83d surrogate"
    for feature in FEATURES:
        texts = [huge, "\0\0", "\u0301" * 5000, None] if isinstance(feature, Language) else [huge, half, "\0\0", None]
        assert len(pa.table(feature.measure(batch(*texts)))) == 4
    assert signed(huge) == signed("a photo of a boat " * 3)
    assert signed(half) == signed("broken surrogate") != signed("broken")


def test_a_caption_of_a_hundred_thousand_pieces_is_signed_like_any_other() -> None:
    text = "".join(map(chr, np.random.default_rng(0).integers(0x4E00, 0x9FFF, 100_000)))
    hashes, bounds = shingles(pa.array([text, "abc", text[:500]]))
    both = signatures(hashes, bounds, 128)
    for n in range(3):
        alone = signatures(hashes[bounds[n] : bounds[n + 1]], np.array([0, bounds[n + 1] - bounds[n]]), 128)
        assert (both[n] == alone[0]).all()


@pytest.mark.parametrize("permutations", [16, 128, 256])
def test_minhash_is_unbiased_with_the_standard_error_of_its_permutations(permutations: int) -> None:
    """Pairs of random sets as large as captions: mean error 0, and its spread that of so many permutations."""
    random = np.random.default_rng(permutations)
    pairs, size = 4000, 46
    for jaccard in (0.1, 0.5, 0.8, 0.95):
        shared = round(2 * size * jaccard / (1 + jaccard))
        exact = shared / (2 * size - shared)
        left = random.integers(0, 2**32, (pairs, size), dtype=np.uint32)
        right = np.hstack([left[:, :shared], random.integers(0, 2**32, (pairs, size - shared), dtype=np.uint32)])
        bounds = np.arange(pairs + 1) * size
        a, b = (signatures(side.ravel(), bounds, permutations) for side in (left, right))
        error = (a == b).mean(axis=1) - exact
        expected = np.sqrt(exact * (1 - exact) / permutations)
        assert abs(error.mean()) < 4 * expected / np.sqrt(pairs) + 0.0015  # two pieces share a place now and then
        assert np.sqrt((error**2).mean()) < 1.06 * expected


@pytest.mark.shared_data
def test_minhash_errs_as_datasketch_does_on_human_captions() -> None:
    captions = [c for photo in pq.read_table(shared_data("captioned.parquet"))["captions"].to_pylist() for c in photo]
    vocabulary = sorted({word for caption in captions for word in caption.split()})
    random = np.random.default_rng(0)
    texts = []
    for n, caption in enumerate(captions[:1500]):
        words = caption.split()
        for _ in range(n % 4):
            words[random.integers(len(words))] = str(random.choice(vocabulary))
        texts.append(plain(caption, " ".join(words[: len(words) - n % 3])))
    sets = [[{t[n : n + 5] for n in range(max(1, len(t) - 4))} for t in pair] for pair in texts]
    exact = np.array([len(a & b) / len(a | b) for a, b in sets])
    values = np.array(signed(*(text for pair in texts for text in pair)), np.uint16).reshape(len(texts), 2, -1)
    ours = (values[:, 0] == values[:, 1]).mean(axis=1) - exact
    peer = []
    for a, b in sets:
        both = MinHash(128), MinHash(128)
        for it, pieces in zip(both, (a, b), strict=True):
            it.update_batch([piece.encode() for piece in pieces])
        peer.append(both[0].jaccard(both[1]))
    theirs = np.array(peer) - exact
    expected = np.sqrt((exact * (1 - exact) / 128).mean())
    # One fixed set of functions, and captions share pieces: the means are of far fewer than 1,500 draws.
    assert abs(ours.mean()) < 0.2 * expected and abs(theirs.mean()) < 0.2 * expected
    assert np.sqrt((ours**2).mean()) < 1.08 * expected and np.sqrt((theirs**2).mean()) < 1.08 * expected


def test_a_caption_is_signed_once_however_often_it_stands_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.features import minhash

    sizes: list[int] = []
    plain_signatures = minhash.signatures

    def counted(hashes: np.ndarray, bounds: np.ndarray, permutations: int) -> np.ndarray:
        sizes.append(len(bounds) - 1)
        return plain_signatures(hashes, bounds, permutations)

    monkeypatch.setattr(minhash, "signatures", counted)
    found = signed("Red boat", "a dog", "red boat!", None, "RED BOAT")
    assert sizes == [3] and found[0] == found[2] == found[4] != found[1]  # the third is the empty one
