"""Do new captions help on real images? CIFAR-10 with half of its captions naming a class drawn at random.

Run `make recaption-cifar`. It needs `cifar10-train.parquet` and `cifar10-test.parquet`. As on the mini-web
(`recaption_mini_web.py`): a CLIP trained on this very pool chooses the clean part, a CoCa trained on that part
describes the rest, and `curate ablate` compares. 20,000 images, 10,000 others to test on; about 25 minutes on one core.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click
import numpy as np
import pyarrow.parquet as pq

from tests.experiments.cifar_noise import TEMPLATES, captions, write_shards
from tests.experiments.recaption_mini_web import SAMPLES_SEEN, prove
from trainer.tasks.write import write_classification_task

IMAGES = 20_000
ARMS = ("clean part alone", "ratio 1.0", "best of", "every caption true")


def write_pool(data: Path, out: Path) -> None:
    """Write `OUT/pool`, its `OUT/truth.json`, and the task `OUT/cifar10`."""
    learn, test = (pq.read_table(data / f"cifar10-{part}.parquet") for part in ("train", "test"))
    names = sorted(set(learn["label"].to_pylist()))
    labels = np.array([names.index(label) for label in learn["label"].to_pylist()[:IMAGES]])
    images = learn["jpg"].to_pylist()[:IMAGES]
    said, _ = captions(labels, names)
    write_shards(out / "pool", images, said)
    random = np.random.default_rng(3)
    true = {
        hashlib.sha256(image).hexdigest(): TEMPLATES[random.integers(len(TEMPLATES))].format(c=names[label])
        for image, label in zip(images, labels, strict=True)
    }
    (out / "truth.json").write_text(json.dumps(true))
    items = zip(test["jpg"].to_pylist(), [names.index(label) for label in test["label"].to_pylist()], strict=True)
    write_classification_task(out / "cifar10", items, names, TEMPLATES)


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seeds", default=3, show_default=True)
def main(data: Path, out: Path, seeds: int) -> None:
    """Run the experiment on the Parquet files in DATA; everything it makes goes to OUT."""
    if not (out / "cifar10").exists():
        write_pool(data, out)
    prove(out, out / "cifar10", seeds, coca_samples=96_000, scorer_samples=2 * SAMPLES_SEEN, only=ARMS)


if __name__ == "__main__":
    main()
