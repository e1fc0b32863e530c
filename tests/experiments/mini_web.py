"""The demo's mini-web without its defects, written straight to shards, with captions and boxes; and the demo's tasks.

python -m tests.experiments.mini_web POOL [SAMPLES]
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from itertools import accumulate
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from curate.demo.captions import english, phrase
from curate.demo.files import encode
from curate.demo.scenes import boxes, make_scene, render
from flows.demo_tasks import write_tasks

_PER_SHARD = 1000
_SIDES = (96, 144)  # pixels of the longer side: enough for `tiny`, and quick to draw


def write_pool(folder: Path, samples: int, seed: int = 0, workers: int = 2) -> Path:
    """Shards of `samples` scenes: `jpg`, and `json` with the caption and a box for every single object."""
    folder.mkdir(parents=True, exist_ok=True)
    with Pool(workers) as pool:
        for start in range(0, samples, _PER_SHARD):
            numbers = range(start, min(start + _PER_SHARD, samples))
            with tarfile.open(folder / f"{start // _PER_SHARD:05d}.tar", "w") as tar:
                for number, members in zip(
                    numbers, pool.starmap(sample, [(seed, number) for number in numbers]), strict=True
                ):
                    for extension, content in members.items():
                        info = tarfile.TarInfo(f"{number:06d}.{extension}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
    return folder


def sample(seed: int, number: int) -> dict[str, bytes]:
    """One sample's members by extension."""
    scene = make_scene(seed, number, sides=_SIDES)
    caption = english(scene, np.random.default_rng((seed, number, 12)))
    counts = [group.count for group in scene.groups]
    named = []
    for group, first in zip(scene.groups, accumulate(counts, initial=0), strict=False):
        if group.count == 1:
            phrases = [phrase(group, with_colour=coloured).split(" ", 1)[1] for coloured in (True, False)]
            box = [round(value, 4) for value in boxes(scene)[first]]
            named.append({"phrase": next(words for words in phrases if words in caption), "box": box})
    facts = {"caption": caption, "boxes": named}
    return {"jpg": encode(render(scene), "jpg", 88), "json": json.dumps(facts).encode()}


if __name__ == "__main__":
    write_pool(Path(sys.argv[1]) / "shards", int(sys.argv[2]) if len(sys.argv) > 2 else 16_000)
    write_tasks(Path(sys.argv[1]) / "tasks", 1000)
