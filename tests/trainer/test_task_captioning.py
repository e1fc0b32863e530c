"""Captions: the numbers of the packages that define the metrics."""

import io
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import torch
from PIL import Image
from rouge_score import rouge_scorer
from task_models import Embedding, Scripted, picture
from test_task_retrieval import captioned

from trainer.caption_metrics import caption_metrics
from trainer.tasks._cider import cider_d
from trainer.tasks._clip_score import clip_scores
from trainer.tasks.captioning import caption_scores, words
from trainer.tasks.contract import run_task
from trainer.tasks.write import write_task

CANDIDATES = ["a red star on a striped background", "two blue fish above a house", "a cat a cat a cat", ""]
REFERENCES = [
    ["a red star", "the star is red, on a striped wall"],
    ["two fish swim over a house.", "a house below two blue fish"],
    ["a black cat in the garden, looking at us", "a cat"],
    ["a green tree in the middle"],
]


def test_numbers_are_those_of_coco() -> None:
    """Of pycocoevalcap 1.2; tests/experiments/task_references.py repeats them, on 500 photos too."""
    corpus, each = caption_scores(CANDIDATES, REFERENCES)
    assert each["cider"] == pytest.approx([3.161120655424554, 3.062500000000001, 0.7578250335126737, 0.0], abs=1e-12)
    assert corpus["cider"] == pytest.approx(1.7453614222343072)
    assert corpus["bleu_1"] == pytest.approx(0.3731226403193966)
    assert corpus["bleu_4"] == pytest.approx(3.07e-5, abs=1e-4)  # no four words in common: theirs adds a trace


def test_numbers_are_those_of_sacrebleu_and_rouge_score() -> None:
    """Captions without punctuation, of which every tokenizer makes the same words."""
    candidates = ["a man rides a brown horse on the beach", "two dogs run through the snow"]
    references = [
        ["a man rides a horse on the beach", "someone rides a brown horse"],
        ["two dogs run through the deep snow", "two dogs play"],
    ]
    corpus, each = caption_scores(candidates, references)
    streams = [list(stream) for stream in zip(*references, strict=True)]
    assert corpus["bleu_4"] == pytest.approx(sacrebleu.corpus_bleu(candidates, streams).score / 100)
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    theirs = [scorer.score_multi(own, one)["rougeL"].fmeasure for own, one in zip(references, candidates, strict=True)]
    assert each["rouge_l"] == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A man's dog isn't red.", "a man 's dog is n't red"),
        ("Two people; one (a child) waves - \"hello!\"", "two people one a child waves hello"),
        ("He stops. Then he runs .", "he stops then he runs"),
        ("The cat’s 3.5 lbs, e.g. small", "the cat 's 3.5 lbs e.g. small"),
        ("  ", ""),
    ],
)  # fmt: skip
def test_words_are_the_penn_treebanks(caption: str, tokens: str) -> None:
    assert words(caption) == tokens.split()


def test_cider_needs_several_items_and_a_reference_each() -> None:
    assert cider_d([["a", "cat"]], [[["a", "cat"]]]) == [0.0]
    assert cider_d([], []) == []
    same = [[str(n) + letter for letter in "abcde"] for n in range(3)]
    assert cider_d(same, [[one] for one in same]) == pytest.approx([10.0] * 3)
    with pytest.raises(ValueError, match="one reference or more"):
        cider_d([["a"]], [[]])


def test_a_family_that_writes_captions(tmp_path: Path) -> None:
    items = [{"image": picture(n), "captions": own} for n, own in enumerate(REFERENCES)]
    folder = write_task(tmp_path / "captions", {"kind": "captioning", "prompt": "say"}, items)
    done = run_task(str(folder), Scripted(says=lambda n, prompt: CANDIDATES[n] if prompt == "say" else ""), 3)
    corpus, each = caption_scores(CANDIDATES, REFERENCES)
    assert (done.metric, done.numbers, done.scores) == ("cider", ["cider"], each["cider"])
    assert done.metrics == pytest.approx(corpus)
    assert done.low < done.value < done.high


def test_the_main_metric_can_be_a_share(tmp_path: Path) -> None:
    items = [{"image": picture(0), "captions": ["a cat"]}] * 2
    folder = write_task(tmp_path / "captions", {"kind": "captioning", "metric": "rouge_l"}, items)
    done = run_task(str(folder), Scripted(says=lambda n, prompt: "a cat"), 8)
    assert (done.metric, done.value) == ("rouge_l", 1.0)
    write_task(folder, {"kind": "captioning", "metric": "meteor"}, items)
    with pytest.raises(ValueError, match="metric 'meteor' is neither cider nor rouge_l"):
        run_task(str(folder), Scripted(says=lambda n, prompt: "a cat"), 8)


def test_a_family_without_words_cannot_do_it(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "c", {"kind": "captioning"}, [{"image": picture(0), "captions": ["a cat"]}])
    with pytest.raises(ValueError, match="scripted writes no text, which this task needs"):
        run_task(str(folder), Embedding(lambda what: [1.0]), 8)


@pytest.mark.shared_data
def test_people_describe_photos_like_other_people(tmp_path: Path) -> None:
    """Each photo's first caption against the other four; and against those of another photo."""
    photos = captioned()
    items = [{"image": jpeg, "captions": own[1:]} for jpeg, own in photos]
    by_pixels = {_pixels(jpeg): n for n, (jpeg, _) in enumerate(photos)}

    class Person(Scripted):
        def preprocess(self, image: Image.Image) -> torch.Tensor:
            return torch.full((3, 1, 1), float(by_pixels[np.asarray(image).tobytes()[:5000]]))

    folder = write_task(tmp_path / "photos", {"kind": "captioning"}, items)
    done = run_task(str(folder), Person(says=lambda n, prompt: photos[n][1][0]), 64)
    # pycocoevalcap 1.2 with the words of Stanford's tokenizer, which differ in 1 of the 2,500 captions
    assert done.metrics["cider"] == pytest.approx(0.8140105, abs=1e-4)
    assert done.metrics["bleu_4"] == pytest.approx(0.2090830, abs=1e-5)
    assert done.metrics["bleu_1"] == pytest.approx(0.6471638, abs=1e-5)
    other = run_task(str(folder), Person(says=lambda n, prompt: photos[(n + 1) % 500][1][0]), 64)
    assert other.metrics["cider"] < 0.1


def _pixels(jpeg: bytes) -> bytes:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).tobytes()[:5000]


def test_clip_scores_are_the_papers() -> None:
    """Hessel et al. 2021, section 3, written out for vectors of two numbers."""
    angles = {"A photo depicts a cat": 0.0, "A photo depicts a dog": 1.2, "A photo depicts no": 3.0}
    scorer = Embedding(lambda what: [np.cos(a := angles.get(what, 0.3) if isinstance(what, str) else 0.3), np.sin(a)])
    fits, both = clip_scores(
        scorer, torch.zeros(3, 3, 1, 1), ["a cat", "a dog", "no"], [["a dog", "a cat"], ["a cat"], ["a cat"]]
    )
    first = 2.5 * np.cos(0.3)
    second = 2.5 * np.cos(0.9)
    assert fits == pytest.approx([first, second, 0.0], abs=1e-5)  # a cosine below 0 counts as 0
    other = np.cos(1.2)
    assert both == pytest.approx([2 * first / (first + 1), 2 * second * other / (second + other), 0.0], abs=1e-5)
    with pytest.raises(ValueError, match="scripted has no embeddings"):
        clip_scores(Scripted(says=lambda n, prompt: ""), torch.zeros(1, 3, 1, 1), ["a"], [["a"]])


def test_the_task_tells_clip_scores_of_a_scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Embedding(lambda what: [1.0, 0.0])
    monkeypatch.setattr(
        "trainer.tasks.captioning.load_checkpoint", lambda folder, device: {"runs/clip": scorer}[folder]
    )
    items = [{"image": picture(n), "captions": own} for n, own in enumerate(REFERENCES)]
    folder = write_task(tmp_path / "captions", {"kind": "captioning", "scorer": "runs/clip"}, items)
    done = run_task(str(folder), Scripted(says=lambda n, prompt: CANDIDATES[n]), 3)
    assert done.metrics["clip_score"] == pytest.approx(2.5)
    assert done.metrics["ref_clip_score"] == pytest.approx(2 * 2.5 / 3.5)
    assert done.numbers == ["cider", "clip_score", "ref_clip_score"]


def test_metrics_of_a_table_of_captions() -> None:
    said = {str(n): caption for n, caption in enumerate(CANDIDATES)}
    true = {str(n): own for n, own in enumerate(REFERENCES)} | {"not described": ["a cat"]}
    corpus, _ = caption_scores(CANDIDATES, REFERENCES)
    assert caption_metrics(said, true) == pytest.approx(corpus)
    images = {key: picture(int(key)) for key in said}
    scored = caption_metrics(said, true, images, Embedding(lambda what: [1.0]))
    assert scored == pytest.approx(corpus | {"clip_score": 2.5, "ref_clip_score": 2 * 2.5 / 3.5})
    with pytest.raises(ValueError, match="no image for '0'"):
        caption_metrics(said, true, {}, Embedding(lambda what: [1.0]))
    with pytest.raises(ValueError, match="one has no reference"):
        caption_metrics({"x": "a"}, true)
