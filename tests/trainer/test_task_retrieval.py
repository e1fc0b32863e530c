"""Retrieval, exactly: small scores by hand, large ones as CLIP_benchmark counts them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from task_models import Embedding, Scripted, picture
from trainer_samples import SHARED_DATA

from trainer.family import VisionLanguageModel
from trainer.tasks import retrieval
from trainer.tasks.contract import run_task
from trainer.tasks.retrieval import ranks, ranks_of_scores
from trainer.tasks.write import write_task

# Images 1 to 3 lie at these angles, in degrees, and so do the captions.
ANGLES: dict[int | str, float] = {1: 0, 2: 90, 3: 180, "one": 5, "uno": 80, "two": 91, "three": 60}
VECTOR = {name: (np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))) for name, angle in ANGLES.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    captions = {1: ["one", "uno"], 2: ["two"], 3: ["three"]}
    items = [{"image": picture(number), "captions": lines} for number, lines in captions.items()]
    return write_task(tmp_path / "angles", {"kind": "retrieval"}, items)


@pytest.mark.parametrize(
    "model",
    [Embedding(VECTOR.__getitem__), Scripted(lambda n, text: float(np.dot(VECTOR[n], VECTOR[text])))],
    ids=["by embeddings", "by asking of each pair"],
)
def test_each_direction_by_hand(folder: Path, model: VisionLanguageModel) -> None:
    """Image 1 finds "one", image 2 "two", image 3 finds "two" first; "uno" and "three" find image 2."""
    done = run_task(str(folder), model, batch_size=2)
    assert (done.metric, done.items, done.scores) == ("r@1", 3, [(1 + 1 / 2) / 2, 1, 0])
    assert done.metrics["image_to_text_r@1"] == pytest.approx(2 / 3)
    assert done.metrics["text_to_image_r@1"] == pytest.approx(2 / 4)
    assert done.metrics["text_to_image_r@5"] == done.metrics["image_to_text_r@10"] == 1
    assert done.value == done.metrics["r@1"] == pytest.approx(1.75 / 3)


def test_a_model_that_cannot_tell_finds_nothing(folder: Path) -> None:
    done = run_task(str(folder), Embedding(lambda what: (1.0, 0.0)), batch_size=5)
    assert (done.value, done.metrics["image_to_text_r@1"], done.metrics["text_to_image_r@1"]) == (0, 0, 0)


def test_a_score_that_is_no_number_finds_nothing() -> None:
    scores = torch.tensor([[torch.nan, 0.1], [0.2, -torch.inf]])
    of_images, of_texts = ranks_of_scores(scores, np.array([0, 1]))
    assert of_images.tolist() == of_texts.tolist() == [1, 1]


def test_too_many_pairs_for_a_family_without_embeddings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "MOST_PAIRS", 11)
    with pytest.raises(ValueError, match="has 3 images and 4 captions, 11 pairs are the most for the family scripted"):
        run_task(str(folder), Scripted(lambda n, text: 0.0), 8)


def test_shares_are_those_of_clip_benchmark() -> None:
    """The numbers are of clip_benchmark 1.6.2's recall_at_k; tests/experiments/task_references.py repeats them."""
    generator = torch.Generator().manual_seed(0)
    scores, owner = torch.rand(60, 150, generator=generator), torch.randint(60, (90,), generator=generator)
    owner = torch.cat([torch.arange(60), owner])
    scores[owner, torch.arange(150)] += 0.4
    of_images, of_texts = ranks_of_scores(scores, owner.numpy())
    theirs = {1: (0.6, 0.41333333), 5: (0.61666667, 0.48666668), 10: (0.65, 0.56666666)}
    for k, (image_to_text, text_to_image) in theirs.items():
        assert (of_images < k).mean() == pytest.approx(image_to_text, abs=1e-6)
        assert (of_texts < k).mean() == pytest.approx(text_to_image, abs=1e-6)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    images, texts = (torch.randn(n, 8, generator=generator) for n in (23, 40))
    owner = torch.randint(23, (40,), generator=generator).numpy()
    whole = ranks_of_scores(images @ texts.T, owner)
    monkeypatch.setattr(retrieval, "BLOCK", 7)
    for part, expected in zip(ranks(images, texts, owner), whole, strict=True):
        assert np.abs(part - expected).max() <= 1  # equal scores to the last bit, which a block may round otherwise


@pytest.mark.shared_data
def test_words_alone_find_photos_by_other_peoples_captions(tmp_path: Path) -> None:
    """Of 500 photos: the "image" is its first caption as a bag of words, the captions are the other four."""
    photos = captioned()
    items = [{"image": picture(n % 256, (1 + n // 256, 1)), "captions": own[1:]} for n, (_, own) in enumerate(photos)]
    first = [own[0] for _, own in photos]
    vocabulary = {word: n for n, word in enumerate(sorted({w for text in first for w in text.lower().split()}))}

    class Words(Embedding):
        def preprocess(self, image: object) -> torch.Tensor:
            number = image.getpixel((0, 0))[0] + 256 * (image.width - 1)  # type: ignore[attr-defined]
            return torch.full((3, 2, 2), float(number))

    def bag(what: int | str) -> list[float]:
        counts = np.zeros(len(vocabulary))
        for word in (first[what] if isinstance(what, int) else what).lower().split():
            if word in vocabulary:
                counts[vocabulary[word]] += 1
        return (counts + 1e-6).tolist()

    done = run_task(str(write_task(tmp_path / "photos", {"kind": "retrieval"}, items)), Words(bag), 128)
    assert done.items == 500
    assert 0.2 < done.value < 0.9
    assert done.metrics["image_to_text_r@1"] < done.metrics["image_to_text_r@5"] < done.metrics["image_to_text_r@10"]


def captioned() -> list[tuple[bytes, list[str]]]:
    """The captioned photos: JPEG bytes and five sentences each."""
    if not (SHARED_DATA / "captioned.parquet").is_file():
        pytest.skip("the captioned photos are not beside the checkout (../shared/data/captioned.parquet)")
    import pyarrow.parquet as pq

    rows = pq.read_table(SHARED_DATA / "captioned.parquet", columns=["jpg", "captions"]).to_pylist()
    return [(row["jpg"], row["captions"]) for row in rows]
