from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.cli import run
from curate.errors import RequestError
from curate.features.learned_mix import LearnedMix, auc_interval, logistic_regression
from tests.conftest import pair, write_pool

SIZE = 8


def rows(count: int, wrong: float = 0.3, seed: int = 0, brightness: float = 0.5) -> tuple[pa.Table, np.ndarray]:
    """Samples whose image and text embeddings agree, but for a share of wrong captions; and which are wrong."""
    random = np.random.default_rng(seed)
    meaning = random.normal(size=(count, SIZE))
    images, texts = (meaning + random.normal(0, 0.6, (count, SIZE)) for _ in range(2))
    swapped = random.random(count) < wrong
    texts[swapped] = random.normal(size=(swapped.sum(), SIZE))
    images, texts = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (images, texts))
    feature = LearnedMix()
    columns: dict[str, object] = {name: random.random(count) * 100 for name in feature.reads[:-2]}
    columns["brightness"] = np.clip(random.normal(brightness, 0.1, count), 0, 1)
    vectors = {"clip_image": _lists(images), "clip_text": _lists(texts)}
    return pa.table({"uid": [f"{n:05d}" for n in range(count)], **columns, **vectors}), swapped


def _lists(vectors: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float32).ravel()), SIZE)


def scores(feature: LearnedMix, artifact: dict, table: pa.Table) -> np.ndarray:
    return feature.apply(artifact, table)["mix_score"].to_numpy(zero_copy_only=False)


def test_it_learns_to_tell_wrong_captions_from_a_pool_that_has_some() -> None:
    table, _ = rows(2000)
    feature = LearnedMix(rows=2000)
    artifact = feature.fit(table)
    fresh, wrong = rows(1000, seed=1)
    found = scores(feature, artifact, fresh)
    area, low, high = auc_interval(found[~wrong], found[wrong])
    assert area > 0.9 and low < area < high
    # What the held-out fifth said is lower: a third of its "real" pairs are wrong ones.
    said = feature.report(artifact)
    assert said["interval"][0] < said["held_out_auc"] < area
    assert next(iter(said["weights"])) == "cosine" and said["weights"]["cosine"] > 0


def test_trusted_samples_say_what_is_wanted(tmp_path: Path) -> None:
    bright, _ = rows(500, seed=2, brightness=0.8)
    (tmp_path / "dataset" / "shards").mkdir(parents=True)
    pq.write_table(bright, tmp_path / "dataset" / "shards" / "00000.parquet")
    pool, _ = rows(1000, seed=3)
    feature = LearnedMix(trusted=str(tmp_path / "dataset"))
    artifact = feature.fit(pool)
    assert max(feature.report(artifact)["weights"].items(), key=lambda w: abs(w[1]))[0] == "brightness"
    found, brightness = scores(feature, artifact, pool), pool["brightness"].to_numpy()
    assert np.corrcoef(found, brightness)[0, 1] > 0.5


def test_a_sample_that_lacks_a_column_has_no_score_and_does_not_change_the_others() -> None:
    table, _ = rows(300)
    feature = LearnedMix()
    artifact = feature.fit(table)
    whole = scores(feature, artifact, table)
    sharpness = table["sharpness"].to_pylist()
    sharpness[7] = None
    place = table.schema.get_field_index("sharpness")
    broken = scores(feature, artifact, table.set_column(place, "sharpness", pa.array(sharpness, pa.float64())))
    assert np.isnan(broken[7])
    np.testing.assert_array_equal(np.delete(broken, 7), np.delete(whole, 7))


def test_the_same_sample_gives_the_same_model() -> None:
    first, second = (LearnedMix().fit(rows(300)[0]) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_too_few_samples_and_a_wrong_trusted_path(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="needs 20"):
        LearnedMix().fit(rows(10)[0])
    with pytest.raises(RequestError, match=r"features.learned_mix.trusted: .*nothing has no Parquet"):
        LearnedMix(trusted=str(tmp_path / "nothing")).fit(rows(100)[0])


def test_the_regression_finds_the_weights_that_made_the_labels() -> None:
    random = np.random.default_rng(0)
    inputs, weights = random.normal(size=(20_000, 2)), np.array([0.0, 2.0, -1.0])
    labels = (random.random(20_000) < 1 / (1 + np.exp(-inputs @ weights[1:]))).astype(float)
    np.testing.assert_allclose(logistic_regression(inputs, labels, 1.0), weights, atol=0.06)


def test_the_area_under_the_curve() -> None:
    assert auc_interval(np.array([2.0, 3.0]), np.array([0.0, 1.0]))[0] == 1
    assert auc_interval(np.array([1.0, 1.0]), np.array([1.0]))[0] == 0.5


def test_a_recipe_uses_it_as_any_score_and_the_manifest_says_what_it_weighs(tmp_path: Path, tiny_clip: Path) -> None:
    pool = write_pool(tmp_path / "pool", [pair(n) for n in range(48)])
    recipe = tmp_path / "mix.yaml"
    recipe.write_text(
        f"features:\n  clip: {{model: {tiny_clip}}}\n  learned_mix: {{rows: 100}}\n"
        "filters:\n  - score: {column: mix_score, keep_fraction: 0.5}\n"
    )
    assert run(["filter", str(pool), str(tmp_path / "out"), "-r", str(recipe), "--workers", "1"]) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["selection"]["kept"] == 24
    fitted = manifest["fitted"]["learned_mix"]
    assert set(fitted) == {"held_out_auc", "interval", "weights"} and "cosine" in fitted["weights"]
    kept = pq.read_table(tmp_path / "out" / "shards" / "00000.parquet", columns=["mix_score"])["mix_score"]
    assert kept.null_count == 0
