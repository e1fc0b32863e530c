"""What is measured of captions: scores, the things they name, what a detector sees, and the variety of a set."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curate.engines import open_engine
from curate.errors import RequestError, WorkError
from curate.features.clip import Clip
from curate.features.index import Index
from curate.measure import measure_shard, read_features, shard_tasks
from curate.pool import open_pool
from curate.recaption.check import load_checks
from curate.recaption.contract import CAPTIONS
from curate.recaption.measures import MEASURES, measure_captions
from curate.recaption.phrases import phrases_of
from curate.recaption.scores import embed_texts, thing_scores
from curate.recaption.statistics import caption_statistics
from curate.recaption.words import ngrams, repeated, words_of
from curate.storage import Folder
from tests.conftest import pair, write_pool

HOT_DOG = {"detector": "eyes:see", "objects": {"dog": []}}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return write_pool(tmp_path / "pool", [pair(n) for n in range(12)])


def captions_of(folder: Path) -> pa.Table:
    """Two written captions and the original for each sample; one of them failed."""
    rows = []
    for task in shard_tasks(open_pool(str(folder)), [Index(), Clip()][:1]):
        measure_shard(task)
        for uid, key in zip(
            *(read_features(task, ("uid", "key"))[name].to_pylist() for name in ("uid", "key")), strict=True
        ):
            row = {"uid": uid, "shard": task.shard.name, "key": key, "prompt": "Describe it.", "chosen": False}
            said = {-1: pair(int(key)).caption, 0: f"a red car beside house {key}", 1: "two dogs on the grass"}
            rows += [row | {"number": number, "caption": caption} for number, caption in said.items()]
    rows[1]["caption"] = None
    return pa.Table.from_pylist(rows, CAPTIONS)


def measured(folder: Path, work: Path, captions: pa.Table, checks: list, scorer: Clip | None = None) -> pa.Table:
    engine = open_engine("local", 1)
    return measure_captions(captions, open_pool(str(folder)), load_checks(checks), scorer, engine, Folder(str(work)))


def test_scores_are_the_cosines_of_the_feature_clip(pool: Path, tmp_path: Path, tiny_clip: Path) -> None:
    captions, clip = captions_of(pool), Clip(model=str(tiny_clip))
    found = measured(pool, tmp_path / "work", captions, ["agreement", "hallucination"], clip)
    assert found.column_names == [*CAPTIONS.names, "original_score", "phrase", "phrase_score"]
    assert found.drop(["original_score", "phrase", "phrase_score", "score"]).equals(captions.drop(["score"]))
    own = found.filter(pc.equal(found["number"], -1))
    cached = pa.concat_tables(
        read_features(t, ("uid", "clip_score")) for t in shard_tasks(open_pool(str(pool)), [Index(), clip])
    )
    there = dict(zip(cached["uid"].to_pylist(), cached["clip_score"].to_pylist(), strict=True))
    for uid, score in zip(own["uid"].to_pylist(), own["score"].to_pylist(), strict=True):
        assert score == pytest.approx(there[uid], abs=2e-3)  # the cache has half precision
    assert found["original_score"].to_pylist() == np.repeat(own["score"].to_numpy(), 3).tolist()
    assert found["score"][1].as_py() is None and found["phrase"][1].as_py() is None  # no caption was written
    assert own["phrase_score"].null_count == len(own)
    assert set(found["phrase"].drop_null().to_pylist()) <= {"red car", "house", "two dogs", "grass"}


def test_the_order_of_rows_changes_nothing_and_nothing_is_measured_twice(
    pool: Path, tmp_path: Path, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions, clip = captions_of(pool), Clip(model=str(tiny_clip))
    checks = ["length", "language", "agreement", "hallucination"]
    found = measured(pool, tmp_path / "work", captions, checks, clip)
    back = pa.array(np.random.default_rng(0).permutation(len(captions)))
    shuffled = measured(pool, tmp_path / "other", captions.take(back), checks, clip)
    for name in ("score", "phrase_score"):
        left, right = (t[name].to_numpy() for t in (shuffled, found.take(back)))
        np.testing.assert_allclose(left, right, atol=1e-5)
    assert shuffled["caption_words"].to_pylist() == found.take(back)["caption_words"].to_pylist()
    monkeypatch.setattr("curate.recaption.pieces.embed_texts", None)  # would fail if it were called
    again = measured(pool, tmp_path / "work", captions, checks, clip)
    assert again.equals(found)


def test_things_are_named_in_english_only(pool: Path, tmp_path: Path, tiny_clip: Path) -> None:
    captions = captions_of(pool)
    german = [
        "Ein brauner Hund läuft im Garten durch das hohe Gras" if n % 3 == 2 else None for n in range(len(captions))
    ]
    place = captions.column_names.index("caption")
    captions = captions.set_column(place, "caption", pc.coalesce(pa.array(german), captions["caption"]))
    found = measured(pool, tmp_path / "work", captions, ["hallucination"], Clip(model=str(tiny_clip)))
    written = found.filter(pc.greater_equal(found["number"], 0))
    assert [thing is not None for thing in written["phrase"].to_pylist()] == [False, False, *[True, False] * 11]
    assert written["score"].null_count == 1


def test_without_a_scorer_scores_are_null(pool: Path, tmp_path: Path) -> None:
    found = measured(pool, tmp_path / "work", captions_of(pool), ["hallucination", "agreement", "length"])
    for name in ("score", "original_score", "phrase", "phrase_score"):
        assert found[name].null_count == len(found)
    words = [len(c.split()) if c else None for c in found["caption"].to_pylist()]
    assert found["caption_words"].to_pylist() == words


def test_a_table_without_rows(pool: Path, tmp_path: Path) -> None:
    found = measured(pool, tmp_path / "work", CAPTIONS.empty_table(), ["hallucination", "length"])
    assert len(found) == 0 and found.schema.field("phrase") == MEASURES.field("phrase")


def test_a_detector_is_the_users_function(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eyes.py").write_text(
        "def see(images):\n    return [['dog'] if len(image) % 2 else None for image in images]\n"
        "def blink(images):\n    return []\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    captions = captions_of(pool)
    found = measured(pool, tmp_path / "work", captions, [{"unseen_objects": HOT_DOG}])
    sizes = {f"{n:06d}": len(pair(n).image or b"") for n in range(12)}
    assert found["objects"].to_pylist() == [["dog"] if sizes[key] % 2 else None for key in captions["key"].to_pylist()]
    with pytest.raises(WorkError, match="eyes:blink: 0 answers for 8 images"):
        measured(pool, tmp_path / "work", captions, [{"unseen_objects": HOT_DOG | {"detector": "eyes:blink"}}])
    with pytest.raises(RequestError, match="'eyes:nothing' names no function"):
        measured(pool, tmp_path / "work", captions, [{"unseen_objects": HOT_DOG | {"detector": "eyes:nothing"}}])


def test_things_that_captions_name() -> None:
    assert phrases_of(
        [
            "A little girl covered in paint sits in front of a painted rainbow with her hands in a bowl .",
            "a photo of three white trees, seen on the left side of the frame",
            "The man's dog",
            "",
            "!!!",
        ]
    ) == [["little girl", "paint", "painted rainbow", "hands", "bowl"], ["three white trees"], ["man's dog"], [], []]


def test_the_score_of_a_thing_compares_with_other_things(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model that reads one word: an image of a car is best described by a car."""
    vectors = {"car": [1.0, 0.0], "dog": [0.0, 1.0]}

    def read(clip: Clip, texts: list[str]) -> np.ndarray:
        found = [np.sum([vectors[w] for w in vectors if w in text.split()] or [[0.6, 0.6]], axis=0) for text in texts]
        return np.array([v / np.linalg.norm(v) for v in found], np.float32)

    monkeypatch.setattr("curate.recaption.scores.embed_texts", read)
    texts = ["a car", "a dog", "a dog and a car", "nothing is there"]
    image = np.array([[1.0, 0.0]] * 4, np.float32)
    whole = (read(Clip(), texts) * image).sum(axis=1)
    things, scores = thing_scores(Clip(), texts, image, whole, ["dog", "dog", "dog", "car"])
    assert things.to_pylist()[:3] == ["car", "dog", "dog"]
    right, wrong, half = scores.to_pylist()[:3]
    assert right > 0 > half > wrong
    assert wrong == pytest.approx((0 - 1) / 0.433, abs=0.01)  # a car would score 1; the things' cosines are 0, 0, 0, 1


def test_equal_texts_have_equal_vectors(tiny_clip: Path) -> None:
    found = embed_texts(Clip(model=str(tiny_clip)), ["a dog", "a cat", "a dog"])
    assert found.shape == (3, 16)
    assert np.array_equal(found[0], found[2]) and not np.array_equal(found[0], found[1])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_words_and_runs_of_words() -> None:
    words = words_of(pa.array(["The cat, the CAT!", None, "猫が好き", ""]))
    assert [words.text(a, b) for a, b in zip(words.bounds, words.bounds[1:], strict=False)] == [
        "the cat the cat", "", "猫 が 好 き", "",
    ]  # fmt: skip
    hashes, places, owner = ngrams(words, 2)
    assert places.tolist() == [0, 1, 2, 4, 5, 6] and owner.tolist() == [0, 0, 0, 2, 2, 2]
    assert repeated(hashes, owner, 4).tolist() == [1, 0, 0, 0]


def test_statistics_of_a_set() -> None:
    assert caption_statistics(pa.array(["a dog runs fast", "a dog runs fast", "a cat", None])) == {
        "captions": 3,
        "sampled": 3,
        "mean_words": 3.333,
        "vocabulary": 5,
        "distinct_1": 0.5,
        "distinct_2": 0.5714,
        "distinct_3": 0.5,
        "mean_jaccard": pytest.approx(1 / 3, abs=0.02),
        "common_opening": "a dog runs fast",
        "common_opening_share": 0.6667,
    }
    assert caption_statistics(pa.chunked_array([[None]], pa.string())) == {"captions": 0, "sampled": 0}
