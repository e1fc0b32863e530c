"""Objects: those that are not there, those that captions name, and where they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from task_models import Embedding, Scripted, picture, write_jsonl

from trainer.tasks.caption_hallucination import Names
from trainer.tasks.contract import run_task
from trainer.tasks.grounding import intersection_over_union
from trainer.tasks.hallucination import pair_accuracy, yes_metrics
from trainer.tasks.write import write_task

THERE = {1: {"cat", "dog"}, 2: {"owl"}, 3: {"cat"}}
OBJECTS = ["cat", "dog", "owl"]


def polls(folder: Path, **settings: Any) -> Path:
    items = [
        {"image": picture(n), "present": sorted(there), "absent": [o for o in OBJECTS if o not in there]}
        for n, there in THERE.items()
    ]
    return write_task(folder, {"kind": "hallucination", **settings}, items)


def test_yes_is_what_fits_better_than_usual_for_object_and_image(tmp_path: Path) -> None:
    """Cats fit everything better, and image 3 fits nothing: neither makes a cat, or none, of what is there."""

    def fits(number: int, text: str) -> float:
        thing = text.rsplit(" ", 1)[1]
        return (thing in THERE[number]) + 5.0 * (thing == "cat") - 7.0 * (number == 3)

    done = run_task(str(polls(tmp_path)), Scripted(fits), 2)
    assert (done.items, done.value) == (9, 1)
    assert done.keys[:3] == ["s0000000/cat", "s0000000/dog", "s0000000/owl"]
    assert done.metrics == pytest.approx(
        {"accuracy": 1, "precision": 1, "recall": 1, "f1": 1, "yes_rate": 4 / 9, "pair_accuracy": 1}
    )


def test_a_model_that_sees_nothing_says_no(tmp_path: Path) -> None:
    done = run_task(str(polls(tmp_path)), Embedding(lambda what: [1.0, 2.0]), 4)
    assert (done.value, done.metrics["yes_rate"], done.metrics["pair_accuracy"]) == (5 / 9, 0, 1 / 2)


def test_a_model_that_writes_is_asked(tmp_path: Path) -> None:
    prompts = list[str]()

    def says(number: int, prompt: str) -> str:
        prompts.append(prompt)
        return "Yes, there is." if number != 2 else "No."

    done = run_task(str(polls(tmp_path, answer_by="generate")), Scripted(says=says), 2)
    assert "Is there an owl in the image?" in prompts
    true = np.array([there for n in THERE for there in [True] * len(THERE[n]) + [False] * (3 - len(THERE[n]))])
    said = np.array([True] * 3 + [False] * 3 + [True] * 3)
    both = (true & said).sum()
    assert done.value == (true == said).mean()
    assert done.metrics["precision"] == both / 6
    assert done.metrics["recall"] == both / 4
    assert done.metrics["f1"] == pytest.approx(2 * both / 10)


def test_the_lines_of_pope(tmp_path: Path) -> None:
    lines = [
        {"image": picture(n), "text": f"Is there a {thing} in the imange?", "label": "yes" if thing in there else "no"}
        for n, there in THERE.items()
        for thing in OBJECTS
    ]
    wrong = [lines[0] | {"label": "maybe"}, lines[0] | {"text": "How many cats?"}]
    folder = write_jsonl(tmp_path, {"kind": "hallucination"}, [*lines, *wrong])
    model, seen = Scripted(lambda n, text: float(text.split()[-1] in THERE[n])), list[int]()
    match = model.match
    model.match = lambda images, texts: (seen.append(len(images)), match(images, texts))[1]  # type: ignore[method-assign,func-returns-value]
    done = run_task(str(folder), model, 4)
    assert sum(seen) == 3  # each image is looked at once
    assert (done.items, done.metrics["pair_accuracy"]) == (9, 1)
    assert done.skipped == {"no label": 1, "no object": 1}


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_yes_metrics_are_shares(answers: list[tuple[bool, bool]]) -> None:
    true, said = (np.array(column) for column in zip(*answers, strict=True))
    found = yes_metrics(true, said)
    assert all(0 <= value <= 1 for value in found.values())
    assert min(found["precision"], found["recall"]) <= found["f1"] + 1e-12 <= 1 + 1e-12


def test_pairs_are_of_one_image() -> None:
    images, true = ["a", "a", "a", "b", "b"], np.array([True, False, False, True, True])
    assert pair_accuracy(images, true, np.array([2.0, 1.0, 2.0, 0.0, 0.0])) == {"pair_accuracy": 0.75}
    assert pair_accuracy(["a", "b"], np.array([True, False]), np.array([1.0, 0.0])) == {}


NAMES = {"dog": ["puppy"], "hot dog": [], "fish": [], "person": ["man", "woman"], "bus": []}


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("A DOG and two puppies", {"dog"}),
        ("a man eats a hot  dog near buses", {"person", "hot dog", "bus"}),
        ("a fishing boat, a dogma and a business", set()),
        ("fish, fishes", {"fish"}),
        ("", set()),
    ],
)
def test_objects_that_a_caption_names(caption: str, found: set[str]) -> None:
    assert Names(NAMES).in_caption(caption) == found


def test_recall_and_chair(tmp_path: Path) -> None:
    captions = {1: "a puppy and a man on a bus", 2: "nothing to see", 3: "two dogs"}
    truth = {1: ["dog", "person"], 2: ["fish"], 3: ["puppy"]}
    items = [{"image": picture(n), "objects": there} for n, there in truth.items()] + [
        {"image": picture(1), "objects": ["unicorn"]}
    ]
    folder = write_task(tmp_path / "chair", {"kind": "caption_hallucination", "objects": NAMES}, items)
    done = run_task(str(folder), Scripted(says=lambda n, prompt: captions[n]), 2)
    assert done.scores == [1, 0, 1]
    assert done.metrics == pytest.approx(
        {"object_recall": 2 / 3, "chair_i": 1 / 4, "chair_s": 1 / 3, "objects_named": 4 / 3}
    )
    assert done.skipped == {"object without a name in task.json": 1}


@pytest.mark.parametrize("objects", [None, [], {}, {"dog": "puppy"}, {"dog": [3]}, [1], {"": []}])
def test_wrong_names_are_refused(tmp_path: Path, objects: object) -> None:
    settings = {"kind": "caption_hallucination", "objects": objects}
    folder = write_task(tmp_path / "chair", settings, [{"image": picture(1), "objects": ["dog"]}])
    with pytest.raises(ValueError, match="objects must map each object"):
        run_task(str(folder), Scripted(says=lambda n, prompt: ""), 2)


def test_boxes(tmp_path: Path) -> None:
    """The image is 20 by 10 pixels."""
    found = {1: (0, 0, 0.5, 1), 2: (0, 0, 0.2, 1), 3: [float("nan")] * 4, 4: (0.5, 1, 0, 0)}
    items = [{"image": picture(n), "phrase": "a cat", "box": [0, 0, 0.5, 1]} for n in found]
    items += [
        {"image": picture(1), "phrase": "a cat", "bbox": [0, 0, 5, 10]},
        {"image": picture(1), "phrase": "a cat", "box": [0.5, 0, 0.5, 1]},
        {"image": picture(1), "phrase": "a cat", "bbox": [30, 0, 5, 10]},
        {"image": picture(1), "phrase": "a cat"},
        {"image": picture(1), "box": [0, 0, 1, 1]},
    ]
    folder = write_jsonl(tmp_path, {"kind": "grounding"}, items)
    done = run_task(str(folder), Scripted(finds=lambda n, phrase: found[n]), 3)
    assert done.scores == [1, 0, 0, 0, 1]
    assert done.metrics == pytest.approx({"iou_0.5": 0.4, "mean_iou": (1 + 0.4 + 0.5) / 5, "named": 0.8})
    assert done.skipped == {"no box": 3, "no phrase": 1}
    with pytest.raises(ValueError, match="names no boxes"):
        run_task(str(folder), Scripted(), 3)


def test_boxes_that_do_not_overlap() -> None:
    found = torch.tensor([[0, 0, 0.5, 0.5], [0, 0, 1, 1], [-1, -1, 0.5, 3], [0, 0, torch.inf, 1]])
    true = torch.tensor([[0.5, 0.5, 1, 1], [0, 0, 0.5, 0.5], [0, 0, 0.5, 1], [0, 0, 1, 1]])
    assert intersection_over_union(found, true).tolist() == [0, 0.25, 1, 0]
