"""Does leave-one-out rank filters rightly? CIFAR-10 with planted defects, and filters whose worth is known.

Run `make ablation`. Of 20,000 training images, some classes are five times rarer than others, a fifth are copies of
others (smaller, recompressed, brighter), and half of the captions name a class drawn at random. The recipe has

    near_duplicate_images   finds the copies
    clip_score              finds the wrong captions, with a model trained on this very pool
    random_subset           drops a fifth at random: it can have no effect
    DropClasses             drops all that is called a cat or a ship: it does harm

It needs `cifar10-train.parquet` and `cifar10-test.parquet` and takes about half an hour on two cores.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageEnhance

from curate.cli import run
from tests.experiments.cifar_noise import TEMPLATES, captions, write_shards
from trainer.scales import SCALES
from trainer.tasks.write import write_classification_task
from trainer.train import train

ORIGINALS, COPIES = 16_000, 4_000
RARE = 0.2
SAMPLES_SEEN = 38_400


def imbalanced(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Places of `count` images; every other class comes a fifth as often as the rest: int (count,)."""
    random = np.random.default_rng(seed)
    weight = np.where(labels % 2 == 0, 1.0, RARE)
    return np.sort(random.choice(len(labels), count, replace=False, p=weight / weight.sum()))


def copy_of(image: bytes, random: np.random.Generator) -> bytes:
    """The image brighter or darker, and compressed again."""
    changed = ImageEnhance.Brightness(Image.open(io.BytesIO(image)).convert("RGB")).enhance(random.uniform(0.85, 1.15))
    out = io.BytesIO()
    changed.save(out, "JPEG", quality=int(random.integers(60, 90)))
    return out.getvalue()


def write_pool(data: Path, out: Path) -> list[str]:
    """Write `OUT/pool` and the task `OUT/cifar10`; returns the class names."""
    learn, test = (pq.read_table(data / f"cifar10-{part}.parquet") for part in ("train", "test"))
    names = sorted(set(learn["label"].to_pylist()))
    if not (out / "cifar10").exists():
        labels = [names.index(label) for label in test["label"].to_pylist()]
        write_classification_task(out / "cifar10", zip(test["jpg"].to_pylist(), labels, strict=True), names, TEMPLATES)
    if not (out / "pool").exists():
        random = np.random.default_rng(1)
        every = np.array([names.index(label) for label in learn["label"].to_pylist()])
        chosen = imbalanced(every, ORIGINALS)
        images: list[bytes] = learn["jpg"].take(chosen).to_pylist()
        copied = random.choice(ORIGINALS, COPIES)
        images += [copy_of(images[n], random) for n in copied]
        said, _ = captions(np.concatenate([every[chosen], every[chosen][copied]]), names)
        order = random.permutation(len(images))
        write_shards(out / "pool", [images[n] for n in order], [said[n] for n in order])
    return names


def experiment(out: Path, scorer: Path, seeds: int, only: Sequence[str] = ()) -> dict[str, Any]:
    """The experiment's file as plain data."""
    return {
        "name": "cifar10-leave-one-out",
        "description": "CIFAR-10 with half of the captions wrong, a fifth near-duplicates and rare classes.",
        "pool": str(out / "pool"),
        "tasks": [str(out / "cifar10")],
        "recipe": {
            "features": {"clip": {"model": str(scorer)}},
            "filters": [
                "near_duplicate_images",
                {"random_subset": {"keep_fraction": 0.8}},
                {"tests.experiments.drop_classes:DropClasses": {"words": ["cat", "ship"]}},
                {"clip_score": {"keep_fraction": 0.5}},
            ],
        },
        "mode": "leave-one-out",
        "filters": list(only),
        "scale": "tiny",
        "samples_seen": SAMPLES_SEEN,
        "seeds": seeds,
    }


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seeds", default=3, show_default=True)
def main(data: Path, out: Path, seeds: int) -> None:
    """Run the experiment on the Parquet files in DATA; everything it makes goes to OUT."""
    out.mkdir(parents=True, exist_ok=True)
    write_pool(data, out)
    scale = dataclasses.replace(SCALES["tiny"], samples_seen=2 * SAMPLES_SEEN)
    scorer = train(out / "pool", out / "scorer", scale=scale, seed=100)
    file = out / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment(out, scorer.checkpoint, seeds), sort_keys=False))
    if run(["ablate", str(file), str(out / "ablation")]) != 0:
        raise SystemExit(1)
    verdicts = {c["filter"]: c for c in json.loads((out / "ablation/ablation.json").read_text())["comparisons"]}
    low, high = verdicts["random_subset"]["interval"]
    print(f"\nrandom_subset: the interval {'covers' if low <= 0 <= high else 'does not cover'} zero")


if __name__ == "__main__":
    main()
