"""Do new captions help? The mini-web with half of its captions destroyed, and nothing to mend them with but itself.

Run `make recaption`. Of 16,000 scenes, half lose their caption: a quarter get another scene's, a quarter boilerplate.

1. a CLIP is trained on this very pool, and the half that it likes best is taken for the clean part;
2. a CoCa is trained on that part alone, and describes every image of the other half, three times each;
3. `curate ablate` compares what a CLIP learns of the pool as it is, of the clean part alone, and of the pool with new
   captions in several mixtures: best of all (CapFilt), ratios, both with drawing; and with every caption true again.

About 45 minutes on one core.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import click
import numpy as np
import yaml

from curate.cli import run
from curate.recaption.contract import Answer, Backend, Request
from flows.demo_tasks import write_tasks
from tests.experiments.mini_web import write_pool
from trainer.scales import SCALES
from trainer.train import train

SCENES, ITEMS = 16_000, 1_000
DESTROYED = 0.5
CLEAN = 0.45
"""Share of the pool that the CoCa is trained on: less than is clean, since the CLIP errs."""
KEPT = 0.7
"""Share of the recaptioned pool that passes the filter of the arm that has one."""
SAMPLES_SEEN = 25_600
BOILERPLATE = (
    "IMG_{n}.jpg", "click here to enlarge the picture", "image {n} of {m}", "no description available",
    "photo courtesy of the owner, all rights reserved", "share this page with your friends", "thumbnail {n}",
    "buy now and save, offer ends soon",
)  # fmt: skip


class Truth(Backend):
    """Says what the captions were before they were destroyed: the best that any model could do."""

    name: ClassVar[str] = "truth"
    default_prompts: ClassVar[tuple[str, ...]] = ("",)
    file: str

    @property
    def model_name(self) -> str:
        return "truth"

    def facts(self) -> dict[str, Any]:
        return {"digest": hashlib.sha256(Path(self.file).read_bytes()).hexdigest()}

    def write(self, requests: Iterable[Request]) -> Iterator[Answer]:
        true = json.loads(Path(self.file).read_text())
        for request in requests:
            assert request.image is not None
            yield Answer(request.uid, request.number, true[hashlib.sha256(request.image).hexdigest()])


def destroy(captions: list[str], seed: int = 7) -> tuple[list[str], np.ndarray]:
    """The captions with `DESTROYED` of them replaced, and which ones were: bool (captions,)."""
    random = np.random.default_rng(seed)
    count = len(captions)
    hit = np.zeros(count, bool)
    hit[random.choice(count, int(DESTROYED * count), replace=False)] = True
    said = list(captions)
    for place in np.flatnonzero(hit):
        if random.random() < 0.5:
            said[place] = captions[random.integers(count)]
        else:
            line = BOILERPLATE[random.integers(len(BOILERPLATE))]
            said[place] = line.format(n=random.integers(1, 10_000), m=random.integers(1, 10_000))
    return said, hit


def write_destroyed(source: Path, out: Path) -> None:
    """Shards of the images of `source` with half of the captions destroyed, and beside them what was."""
    samples = list(_samples(source))
    captions, hit = destroy([caption for _, _, caption in samples])
    out.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(samples), 1000):
        with tarfile.open(out / f"{start // 1000:05d}.tar", "w") as tar:
            for (key, image, _), caption in zip(
                samples[start : start + 1000], captions[start : start + 1000], strict=True
            ):
                for extension, content in (("jpg", image), ("txt", caption.encode())):
                    info = tarfile.TarInfo(f"{key}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    true = {hashlib.sha256(image).hexdigest(): caption for _, image, caption in samples}
    (out.parent / "truth.json").write_text(json.dumps(true))
    lost = [key for (key, _, _), gone in zip(samples, hit, strict=True) if gone]
    (out.parent / "destroyed.json").write_text(json.dumps(lost))


def _samples(folder: Path) -> Iterator[tuple[str, bytes, str]]:
    from trainer.shards import list_shards, read_samples

    for shard in list_shards(str(folder)):
        for sample in read_samples(shard, Counter()):
            yield sample.key, sample.image, sample.caption


def arms(scorer: Path, writer: Path, truth: Path, temperature: float = 0.7) -> dict[str, Any]:
    """The arms of the experiment, by name."""
    clip = {"clip": {"model": str(scorer)}}
    recaption = {
        "candidates": f"clip_score < quantile(clip_score, {1 - CLEAN})",
        "features": clip,
        "backend": {"coca": {"model": str(writer), "temperature": temperature, "top_p": 0.9}},
        "samples_per_image": 3,
        "scorer": {"model": str(scorer)},
        "checks": ["length", "refusal", "repetition"],
    }

    def mixed(**how: Any) -> dict[str, Any]:
        return {"recipe": {"recaption": recaption | {"mix": how}, "filters": []}}

    oracle = {
        "backend": {"tests.experiments.recaption_mini_web:Truth": {"file": str(truth)}},
        "checks": [],
        "mix": {"choice": "replace"},
    }
    return {
        "clean part alone": {"recipe": {"features": clip, "filters": [{"clip_score": {"keep_fraction": CLEAN}}]}},
        **{f"ratio {share}": mixed(choice="ratio", ratio=share) for share in (0.25, 0.5, 0.75, 1.0)},
        "best of": mixed(choice="best"),
        "both drawn": mixed(choice="both", ratio=0.75),
        "best of, then filtered": {
            "recipe": {
                "features": clip,
                "recaption": recaption | {"mix": {"choice": "best"}},
                "filters": [{"clip_score": {"keep_fraction": KEPT}}],
            }
        },
        "every caption true": {"recipe": {"recaption": oracle, "filters": []}},
    }


def prove(
    out: Path, task: Path, seeds: int, *, coca_samples: int, scorer_samples: int, only: Sequence[str] = ()
) -> None:
    """Train the scorer and the writer on OUT/pool, and run the ablation of these arms, or of all, into OUT/ablation."""
    tiny = SCALES["tiny"]
    scorer = train(out / "pool", out / "scorer", scale=dataclasses.replace(tiny, samples_seen=scorer_samples), seed=100)
    clean = out / "clean.yaml"
    recipe = {
        "features": {"clip": {"model": str(scorer.checkpoint)}},
        "filters": [{"clip_score": {"keep_fraction": CLEAN}}],
    }
    clean.write_text(yaml.safe_dump(recipe))
    if run(["filter", str(out / "pool"), str(out / "clean"), "-r", str(clean)]) != 0:
        raise SystemExit(1)
    writer = train(
        out / "clean" / "shards", out / "writer", scale=tiny, family="coca", samples_seen=coca_samples, seed=100
    )
    every = arms(scorer.checkpoint, writer.checkpoint, out / "truth.json")
    experiment = {
        "name": out.name,
        "pool": str(out / "pool"),
        "tasks": [str(task)],
        "mode": "arms",
        "arms": {name: arm for name, arm in every.items() if name in only or not only},
        "controls": ["no filter"],
        "scale": {"name": "tiny", "captions": "draw"},
        "samples_seen": SAMPLES_SEEN,
        "seeds": seeds,
    }
    file = out / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment, sort_keys=False))
    if run(["ablate", str(file), str(out / "ablation")]) != 0:
        raise SystemExit(1)


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seeds", default=3, show_default=True)
def main(out: Path, seeds: int) -> None:
    """Run the experiment; everything it makes goes to OUT."""
    if not (out / "tasks").exists():
        write_pool(out / "scenes", SCENES)
        write_destroyed(out / "scenes", out / "pool")
        write_tasks(out / "tasks", ITEMS)
    prove(out, out / "tasks" / "which-object", seeds, coca_samples=128_000, scorer_samples=2 * SAMPLES_SEEN)


if __name__ == "__main__":
    main()
