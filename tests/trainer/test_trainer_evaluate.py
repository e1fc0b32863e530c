import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from trainer_samples import COLOURS, TEMPLATES, jpeg, write_tar

from trainer.evaluate import evaluate
from trainer.scales import Scale
from trainer.stats import wilson_interval
from trainer.tasks.write import write_classification_task
from trainer.tasks.zero_shot_classification import class_embeddings, run_task, score
from trainer.train import train

NAMES = list(COLOURS)


class ColourModel:
    """A model that sees the mean colour of an image and reads the colour's name in a caption."""

    def encode_image(self, images: torch.Tensor, normalize: bool) -> torch.Tensor:
        features = images.mean((2, 3)) - 0.5
        return torch.nn.functional.normalize(features, dim=-1) if normalize else features

    def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
        features = torch.tensor([COLOURS[NAMES[int(i)]] for i in tokens[:, 0]]) / 255 - 0.5
        return torch.nn.functional.normalize(features, dim=-1) if normalize else features


def read_colour(captions: list[str]) -> torch.Tensor:
    return torch.tensor([[next(i for i, name in enumerate(NAMES) if name in caption)] for caption in captions])


def to_tensor(image: object) -> torch.Tensor:
    return torch.tensor(np.asarray(image)).permute(2, 0, 1) / 255


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Eight images in two shards, the last of which is named wrongly."""
    images = [(jpeg(COLOURS[NAMES[i % 4]], seed=i), i % 4) for i in range(7)] + [(jpeg(COLOURS["red"]), 1)]
    return write_classification_task(tmp_path / "colour-names", images, NAMES, TEMPLATES, items_per_shard=5)


def test_every_item_gets_the_nearest_class(task: Path) -> None:
    result = run_task(str(task), ColourModel(), to_tensor, read_colour, torch.device("cpu"), batch_size=3)
    assert (result.task, result.kind, result.items) == ("colour-names", "zero_shot_classification", 8)
    assert result.correct == "11111110"
    assert result.outcomes.tolist() == [1, 1, 1, 1, 1, 1, 1, 0]
    assert result.keys == [f"s{i:07d}" for i in range(8)]
    assert (result.low, result.accuracy, result.high) == (wilson_interval(7, 8)[0], 7 / 8, wilson_interval(7, 8)[1])
    assert result.mean_per_class == pytest.approx((1 + 2 / 3 + 1 + 1) / 4)


def test_unreadable_items_are_counted(task: Path) -> None:
    image = jpeg(COLOURS["red"])
    broken = [{"jpg": b"no", "cls": b"1"}, {"jpg": image}, {"jpg": image, "cls": b"4"}, {"cls": b"0"}]
    write_tar(task / "test/9.tar", [(str(i), members) for i, members in enumerate(broken)])
    result = run_task(str(task), ColourModel(), to_tensor, read_colour, torch.device("cpu"), batch_size=100)
    assert result.items == 8
    assert result.skipped == {"class without a name": 1, "no class": 1, "no image": 1, "undecodable image": 1}


def test_class_embeddings_are_the_mean_over_templates() -> None:
    class Model:
        def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
            assert normalize
            return torch.nn.functional.one_hot(tokens[:, 0], 4).float()

    def tokenizer(captions: list[str]) -> torch.Tensor:
        return torch.tensor([[["a cat", "the cat", "a dog", "the dog"].index(caption)] for caption in captions])

    classes = class_embeddings(Model(), tokenizer, ["cat", "dog"], ["a {c}", "the {c}"], torch.device("cpu"))
    half = 0.5**0.5
    assert torch.allclose(classes, torch.tensor([[half, half, 0, 0], [0, 0, half, half]]))


def test_mean_per_class_ignores_classes_without_items() -> None:
    result = score("t", list("abcd"), np.array([0, 0, 0, 5]), np.array([0, 0, 1, 5]), Counter())
    assert result.accuracy == 0.75
    assert result.mean_per_class == pytest.approx((2 / 3 + 1) / 2)


def test_a_trained_model_tells_colours_apart(colours: Path, task: Path, tmp_path: Path, nano: Scale) -> None:
    train(colours, tmp_path / "out", scale=dataclasses.replace(nano, samples_seen=16 * 80))
    output = tmp_path / "results/colours.json"
    first, second = evaluate(tmp_path / "out", [task, f"file://{task}"], output=output)
    assert first.accuracy >= 6 / 8
    assert first == second
    written = json.loads(output.read_text())
    assert written["results"] == [dataclasses.asdict(first), dataclasses.asdict(second)]
    assert evaluate(tmp_path / "out/checkpoint", [task], batch_size=3)[0].correct == first.correct


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("classnames.txt", None, "has no classnames.txt"),
        ("classnames.txt", "\n", "classnames.txt is empty"),
        ("zeroshot_classification_templates.txt", "a photo\n", r"'a photo' has no \{c\}"),
    ],
)
def test_what_is_no_task_is_refused(task: Path, file: str, content: str | None, message: str) -> None:
    (task / file).unlink()
    if content is not None:
        (task / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        run_task(str(task), ColourModel(), to_tensor, read_colour, torch.device("cpu"), batch_size=3)


def test_a_task_without_shards_is_refused(task: Path) -> None:
    for shard in (task / "test").iterdir():
        shard.unlink()
    with pytest.raises(ValueError, match="holds no"):
        run_task(str(task), ColourModel(), to_tensor, read_colour, torch.device("cpu"), batch_size=3)


def test_wrong_tasks_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="item 0 is of class 2, and there are 2 names"):
        write_classification_task(tmp_path, [(b"", 2)], ["a", "b"], ["{c}"])
    with pytest.raises(ValueError, match=r"has no \{c\}"):
        write_classification_task(tmp_path, [(b"", 0)], ["a", "b"], ["a photo"])
    with pytest.raises(ValueError, match="there is none"):
        write_classification_task(tmp_path, [], ["a", "b"], ["{c}"])
