import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from trainer_samples import COLOURS, TEMPLATES, jpeg, write_tar

from trainer.evaluate import evaluate
from trainer.family import VisionLanguageModel
from trainer.scales import Scale
from trainer.stats import wilson_interval
from trainer.tasks.contract import run_task
from trainer.tasks.write import write_classification_task
from trainer.tasks.zero_shot_classification import class_embeddings, score
from trainer.train import train

NAMES = list(COLOURS)


class ColourModel(VisionLanguageModel):
    """A model that sees the mean colour of an image and reads the colour's name in a caption."""

    family, device, embeds = "colour", torch.device("cpu"), True

    def preprocess(self, image: object) -> torch.Tensor:
        return torch.tensor(np.asarray(image)).permute(2, 0, 1) / 255

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(images.mean((2, 3)) - 0.5, dim=-1)

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        names = [next(name for name in NAMES if name in text) for text in texts]
        return torch.nn.functional.normalize(torch.tensor([COLOURS[name] for name in names]) / 255 - 0.5, dim=-1)


class MatchingModel(ColourModel):
    """The same, of a family that has no embeddings."""

    embeds = False

    def match(self, images: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        assert all(text.startswith(TEMPLATES[0].split("{c}")[0]) for text in texts)
        return super().match(images, texts)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Eight images in two shards, the last of which is named wrongly."""
    images = [(jpeg(COLOURS[NAMES[i % 4]], seed=i), i % 4) for i in range(7)] + [(jpeg(COLOURS["red"]), 1)]
    return write_classification_task(tmp_path / "colour-names", images, NAMES, TEMPLATES, items_per_shard=5)


@pytest.mark.parametrize("model", [ColourModel(), MatchingModel()])
def test_every_item_gets_the_nearest_class(task: Path, model: VisionLanguageModel) -> None:
    result = run_task(str(task), model, batch_size=3)
    assert (result.task, result.kind, result.items) == ("colour-names", "zero_shot_classification", 8)
    assert result.scores == result.outcomes.tolist() == [1, 1, 1, 1, 1, 1, 1, 0]
    assert result.keys == [f"s{i:07d}" for i in range(8)]
    assert (result.low, result.value, result.high) == (wilson_interval(7, 8)[0], 7 / 8, wilson_interval(7, 8)[1])
    assert result.metrics["mean_per_class"] == pytest.approx((1 + 2 / 3 + 1 + 1) / 4)


def test_unreadable_items_are_counted(task: Path) -> None:
    image = jpeg(COLOURS["red"])
    broken = [{"jpg": b"no", "cls": b"1"}, {"jpg": image}, {"jpg": image, "cls": b"4"}, {"cls": b"0"}]
    write_tar(task / "test/9.tar", [(str(i), members) for i, members in enumerate(broken)])
    result = run_task(str(task), ColourModel(), batch_size=100)
    assert result.items == 8
    assert result.skipped == {"class without a name": 1, "no class": 1, "no image": 1, "undecodable image": 1}


def test_class_embeddings_are_the_mean_over_templates() -> None:
    class Model(ColourModel):
        def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
            places = [["a cat", "the cat", "a dog", "the dog"].index(text) for text in texts]
            return torch.nn.functional.one_hot(torch.tensor(places), 4).float()

    classes = class_embeddings(Model(), ["cat", "dog"], ["a {c}", "the {c}"])
    half = 0.5**0.5
    assert torch.allclose(classes, torch.tensor([[half, half, 0, 0], [0, 0, half, half]]))


def test_mean_per_class_ignores_classes_without_items() -> None:
    result = score("t", list("abcd"), np.array([0, 0, 0, 5]), np.array([0, 0, 1, 5]), Counter())
    assert result.value == 0.75
    assert result.metrics["mean_per_class"] == pytest.approx((2 / 3 + 1) / 2)


def test_a_trained_model_tells_colours_apart(colours: Path, task: Path, tmp_path: Path, nano: Scale) -> None:
    train(colours, tmp_path / "out", scale=dataclasses.replace(nano, samples_seen=16 * 80))
    output = tmp_path / "results/colours.json"
    first, second = evaluate(tmp_path / "out", [task, f"file://{task}"], output=output)
    assert first.value >= 6 / 8
    assert first == second
    written = json.loads(output.read_text())
    assert written["results"] == [dataclasses.asdict(first), dataclasses.asdict(second)]
    assert evaluate(tmp_path / "out/checkpoint", [task], batch_size=3)[0].scores == first.scores


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON object with a kind"),
        ('{"kind": "winning"}', "kind 'winning' is not one of .*zero_shot_classification"),
    ],
)
def test_a_malformed_task_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "task.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        run_task(str(tmp_path), ColourModel(), 8)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("classnames.txt", None, "holds neither task.json nor classnames.txt"),
        ("classnames.txt", "\n", "classnames.txt is empty"),
        ("zeroshot_classification_templates.txt", "a photo\n", r"'a photo' has no \{c\}"),
    ],
)
def test_what_is_no_task_is_refused(task: Path, file: str, content: str | None, message: str) -> None:
    (task / file).unlink()
    if content is not None:
        (task / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        run_task(str(task), ColourModel(), batch_size=3)


def test_a_task_without_shards_is_refused(task: Path) -> None:
    for shard in (task / "test").iterdir():
        shard.unlink()
    with pytest.raises(ValueError, match="holds no"):
        run_task(str(task), ColourModel(), batch_size=3)


def test_wrong_tasks_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="item 0 is of class 2, and there are 2 names"):
        write_classification_task(tmp_path, [(b"", 2)], ["a", "b"], ["{c}"])
    with pytest.raises(ValueError, match=r"has no \{c\}"):
        write_classification_task(tmp_path, [(b"", 0)], ["a", "b"], ["a photo"])
    with pytest.raises(ValueError, match="there is none"):
        write_classification_task(tmp_path, [], ["a", "b"], ["{c}"])
