"""CIFAR-10 with half of its captions replaced by a random class: what does curation win back?

Run `make cifar`. It needs `cifar10-train.parquet` and `cifar10-test.parquet` (columns key, jpg, label) and takes
about forty minutes on two cores. Three arms, three seeds, the same samples seen:

    raw      all 50,000 samples, half of them with a wrong caption (a twentieth of those right by chance)
    curated  what `curate filter -r bootstrap` keeps: judged by models that were trained on the raw pool alone
    oracle   only the samples whose caption was not replaced
"""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.cli import run
from flows.proof import Arm, prove
from trainer.scales import SCALES
from trainer.tasks.write import write_classification_task

TEMPLATES = (
    "a photo of a {c}",
    "a picture of a {c}",
    "a small image of a {c}",
    "this is a {c}",
    "a blurry photo of the {c}",
    "a close-up of a {c}",
    "an image that shows a {c}",
)
NOISE = 0.5


def write_shards(folder: Path, images: Sequence[bytes], captions: Sequence[str], per_shard: int = 5000) -> Path:
    """Write image-caption pairs as WebDataset shards; nothing is done for a folder that has them."""
    if not folder.exists():
        part = folder.with_suffix(".part")
        part.mkdir(parents=True)
        for start in range(0, len(images), per_shard):
            with tarfile.open(part / f"{start // per_shard:05d}.tar", "w") as tar:
                for number in range(start, min(start + per_shard, len(images))):
                    for suffix, data in (("jpg", images[number]), ("txt", captions[number].encode())):
                        info = tarfile.TarInfo(f"{number:06d}.{suffix}")
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))
        part.rename(folder)
    return folder


def captions(labels: np.ndarray, names: Sequence[str], seed: int = 0) -> tuple[list[str], np.ndarray]:
    """A caption per image, half of them for a class drawn at random; and which ones were replaced."""
    random = np.random.default_rng(seed)
    replaced = random.random(len(labels)) < NOISE
    said = np.where(replaced, random.integers(len(names), size=len(labels)), labels)
    templates = random.integers(len(TEMPLATES), size=len(labels))
    return [TEMPLATES[t].format(c=names[s]) for t, s in zip(templates, said, strict=True)], replaced


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seeds", default=3, show_default=True)
@click.option("--recipe", default="bootstrap", show_default=True, help="A built-in recipe or a YAML file.")
@click.option("--set", "changes", multiple=True, metavar="PATH=VALUE", help="Change one parameter of the recipe.")
@click.option("--samples-seen", default=SCALES["tiny"].samples_seen, show_default=True)
def main(data: Path, out: Path, seeds: int, recipe: str, changes: tuple[str, ...], samples_seen: int) -> None:
    """Run the experiment on the Parquet files in DATA; everything it makes goes to OUT."""
    learn, test = (pq.read_table(data / f"cifar10-{part}.parquet") for part in ("train", "test"))
    names = sorted(set(learn["label"].to_pylist()))
    labels = np.array([names.index(label) for label in learn["label"].to_pylist()])
    images = learn["jpg"].to_pylist()
    texts, replaced = captions(labels, names)
    pool = write_shards(out / "pool", images, texts)
    right = np.flatnonzero(~replaced)
    oracle = write_shards(out / "oracle", [images[n] for n in right], [texts[n] for n in right])
    task = out / "cifar10"
    if not task.exists():
        items = zip(test["jpg"].to_pylist(), [names.index(label) for label in test["label"].to_pylist()], strict=True)
        write_classification_task(task, items, names, TEMPLATES)
    scale = dataclasses.replace(SCALES["tiny"], samples_seen=samples_seen)
    name = "-".join(["curated", Path(recipe).stem, *(change.replace("/", "_") for change in changes)])
    dataset = out / name
    flags = [part for change in changes for part in ("--set", change)]
    if run(["filter", str(pool), str(dataset), "-r", recipe, *flags]) != 0:
        raise SystemExit(1)
    selection = pq.read_table(dataset / "selection.parquet")
    print_agreement(selection, replaced)
    arms = [Arm("raw", str(pool)), Arm(name, str(dataset / "shards")), Arm("oracle", str(oracle))]
    evidence = prove(arms, task, out / "models", scale, range(seeds))
    (out / f"evidence-{name}.json").write_text(json.dumps(evidence, indent=2))
    accuracy = {arm["name"]: arm for arm in evidence["arms"]}
    for arm_name, arm in accuracy.items():
        low, high = arm["interval"]
        each = [round(a, 4) for a in arm["per_seed"]]
        print(f"{arm_name:<8} {arm['accuracy']:.1%} [{low:.1%}, {high:.1%}]  seeds {each}")
    for found in evidence["comparisons"]:
        low, high = found["interval"]
        difference = f"{100 * found['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points"
        print(f"{found['b']} - {found['a']}: {difference}, {found['verdict']}")
    raw, curated, best = (accuracy[arm]["accuracy"] for arm in ("raw", name, "oracle"))
    print(f"won back: {(curated - raw) / (best - raw):.0%} of what the noise cost")


def print_agreement(selection: pa.Table, replaced: np.ndarray) -> None:
    """How many of the kept samples had their caption replaced."""
    keys = np.array([int(key) for key in selection["key"].to_pylist()])
    keep = selection["keep"].to_numpy(zero_copy_only=False)
    print(
        f"kept {keep.sum()}; captions replaced: {replaced[keys[keep]].mean():.1%} of them, {replaced.mean():.1%} of all"
    )


if __name__ == "__main__":
    main()
