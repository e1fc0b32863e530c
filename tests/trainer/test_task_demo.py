"""The demo's tasks: their truth is true, and a model that knows it has every item right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from curate.demo.scenes import boxes, make_scene, placed, render
from curate.demo.shapes import SHAPES
from curate.demo.tasks import DemoTask, demo_tasks
from flows.demo_tasks import write_tasks
from trainer.family import VisionLanguageModel
from trainer.tasks._items import Item, read_items
from trainer.tasks.contract import TaskResult, run_task, task_kinds

ITEMS = 12


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = write_tasks(tmp_path_factory.mktemp("tasks"), ITEMS, site_samples=60)
    return {folder.name: folder for folder in folders}


class Oracle(VisionLanguageModel):
    """Knows every item by its pixels, and answers by what is written of it."""

    family, device, generates, grounds = "oracle", torch.device("cpu"), True, True

    def __init__(self, folder: Path):
        self.known = list[tuple[Item, str]]()
        self.place = dict[bytes, int]()
        for part in ("train", "test"):
            if (folder / part).is_dir():
                for item in read_items(str(folder), Counter(), part):
                    for name in item.images:
                        self.place[item.image(name).tobytes()] = len(self.known)
                        self.known.append((item, f"{part} {name}"))

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return torch.tensor(self.place[image.tobytes()])

    def match(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([[self._fits(*self.known[n], text) for text in texts] for n in images.tolist()])

    def match_pairs(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        return self.match(images, texts).diagonal()

    def generate(self, images: torch.Tensor, prompts: Sequence[str], max_tokens: int = 32) -> list[str]:
        items = [self.known[n][0].fields for n in images.tolist()]
        return [" and ".join(item.get("captions", item.get("objects"))[:1]) for item in items]

    def ground(self, images: torch.Tensor, phrases: Sequence[str]) -> torch.Tensor:
        assert [self.known[n][0].fields["phrase"] for n in images.tolist()] == list(phrases)
        return torch.tensor([self.known[n][0].fields["box"] for n in images.tolist()])

    @staticmethod
    def _fits(item: Item, name: str, text: str) -> float:
        fields = item.fields
        if "present" in fields:
            return float(any(text.endswith(f" {thing}") for thing in fields["present"]))
        if "options" in fields:
            right = fields["options"]["ABCD".index(fields["answer"])]
            return float(text == fields["template"].replace("{option}", right))
        if "label" in fields:
            return float(text.endswith(SHAPES[fields["label"]]))
        if "caption_0" in fields:
            return float(text == fields[f"caption_{name[-1]}"])
        return float(text in fields["captions"]) + name.startswith("train")


def test_there_is_a_task_of_every_kind() -> None:
    assert sorted(task.settings["kind"] for task in demo_tasks(1)) == task_kinds()


@pytest.mark.parametrize("task", demo_tasks(1), ids=lambda task: task.name)
def test_who_knows_the_truth_is_always_right(written: dict[str, Path], task: DemoTask) -> None:
    done: TaskResult = run_task(str(written[task.name]), Oracle(written[task.name]), 5)
    assert done.skipped == {}
    assert done.kind == task.settings["kind"]
    if done.kind == "hallucination":  # a question for each object, and as many for others
        assert done.items >= 2 * ITEMS
        assert done.metrics["pair_accuracy"] > 0.9
    elif done.kind == "captioning":
        assert done.metrics["bleu_4"] == pytest.approx(1)
        assert done.metrics["rouge_l"] == 1
    elif done.kind == "caption_hallucination":  # only the first object is named
        assert (done.items, done.metrics["chair_i"], done.metrics["objects_named"]) == (ITEMS, 0, 1)
    else:
        assert (done.items, done.value) == (ITEMS, 1)


def test_boxes_hold_their_objects() -> None:
    """What changes in the picture when the object is of another colour lies in its box, and reaches its edges."""
    for number in range(40):
        scene = make_scene(5, number)
        if any(group.count > 1 for group in scene.groups):
            continue
        for n, (x0, y0, x1, y1) in enumerate(boxes(scene)):
            without = _painted(scene, leave_out=n)
            changed = np.abs(np.asarray(render(scene), int) - without).max(axis=2) > 0
            rows, columns = np.nonzero(changed)
            assert columns.min() >= round(x0 * scene.width)
            assert columns.max() + 1 <= round(x1 * scene.width)
            assert rows.min() >= round(y0 * scene.height)
            assert rows.max() + 1 <= round(y1 * scene.height)
            assert len(rows) > 0.2 * (x1 - x0) * (y1 - y0) * changed.size or len(scene.groups) > 1


def _painted(scene: Any, leave_out: int) -> np.ndarray:
    from curate.demo.backgrounds import draw_background

    drawing = np.random.default_rng((scene.seed, scene.number, 1))
    picture = draw_background(scene.background, drawing, scene.width, scene.height)
    for n, one in enumerate(placed(scene)):
        if n != leave_out:
            picture.paste(one.patch(), (one.left, one.top), one.patch())
    return np.asarray(picture, int)


def test_tasks_are_the_same_for_a_seed_and_others_for_another(written: dict[str, Path], tmp_path: Path) -> None:
    again = write_tasks(tmp_path / "again", ITEMS, site_samples=60)
    for folder in again:
        for file in filter(Path.is_file, folder.rglob("*")):
            assert file.read_bytes() == (written[folder.name] / file.relative_to(folder)).read_bytes()
    other = {task.name: next(iter(task.parts["test"])) for task in demo_tasks(1, seed=1)}
    for task in demo_tasks(1):
        first, second = next(iter(task.parts["test"])), other[task.name]
        assert first.get("image", first.get("image_0")) != second.get("image", second.get("image_0"))


def test_swapped_captions_have_the_same_words(written: dict[str, Path]) -> None:
    for item in read_items(str(written["swapped-words"]), Counter()):
        first, second = (re.findall(r"\w+", item.text(f"caption_{n}")) for n in (0, 1))
        assert first != second
        assert sorted(w for w in first if w not in ("a", "an")) == sorted(w for w in second if w not in ("a", "an"))


def test_answers_are_evenly_spread() -> None:
    (questions,) = (task for task in demo_tasks(60) if task.name == "questions")
    answers = Counter(item["answer"] for item in questions.parts["test"])
    assert max(answers.values()) < 30
    assert min(answers[letter] for letter in "ABC") > 9
