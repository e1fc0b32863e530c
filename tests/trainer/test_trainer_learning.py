import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from trainer_samples import write_tar

from trainer.evaluate import evaluate
from trainer.scales import SCALES
from trainer.tasks.write import write_classification_task
from trainer.train import train

TEMPLATES = ["a photo of a {c}", "a blurry photo of a {c}", "a picture of the {c}", "there is a {c} here"]


@pytest.mark.slow
@pytest.mark.shared_data
def test_tiny_learns_from_real_images(
    tmp_path: Path, cifar10: Callable[[str, int], tuple[list[bytes], list[str]]]
) -> None:
    images, labels = cifar10("train", 5000)
    captions = [TEMPLATES[i % 4].replace("{c}", label).encode() for i, label in enumerate(labels)]
    samples = ({"jpg": image, "txt": caption} for image, caption in zip(images, captions, strict=True))
    write_tar(tmp_path / "shards/0.tar", ((f"{i:05d}", sample) for i, sample in enumerate(samples)))
    images, labels = cifar10("test", 1000)
    names = sorted(set(labels))
    items = [(image, names.index(label)) for image, label in zip(images, labels, strict=True)]
    task = write_classification_task(tmp_path / "cifar10", items, names, TEMPLATES)

    train(tmp_path / "shards", tmp_path / "out", scale=dataclasses.replace(SCALES["tiny"], samples_seen=12_800))
    (result,) = evaluate(tmp_path / "out", [task])
    assert result.low > 0.2  # chance is 0.1
