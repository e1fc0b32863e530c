"""Measuring a pool against CleanVision and a Data-Juicer recipe that tell the same things of the same photos.

Each peer gets the samples as it likes them, files in a folder, and its own two processes; ours reads shards. The start
of programs and workers counts on neither side: a peer times itself once it has started, as Data-Juicer's own log does,
and of ours the time for a pool of a few photos is taken off. All our features are measured for both, also those that a
peer has not (the language of captions; for CleanVision everything of captions).
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.bench.bench_measure import WORKERS, measure
from tests.bench.figure import Figure, best_of
from tests.bench.peers import peer_python, run_peer
from tests.bench.photo_pool import captions, photo_pool, photos

COPIES = 12
FEW = 4
CLEANVISION = ["cleanvision"]
DATA_JUICER = ["py-data-juicer", "aiohttp", "av", "imagededup", "opencv-python-headless", "scipy"]
FIND_ISSUES = f"""
import json, sys, time
from cleanvision import Imagelab
began = time.perf_counter()
lab = Imagelab(data_path=sys.argv[1], verbose=False)
lab.find_issues(n_jobs={WORKERS}, verbose=False)
print()
print(json.dumps({{"seconds": time.perf_counter() - began, "samples": len(lab.issues)}}))
"""
RECIPE = {
    "np": WORKERS,
    "use_cache": False,
    "op_fusion": True,
    "process": [
        {"text_length_filter": {"min_len": 1}},
        {"alphanumeric_filter": {"tokenization": False}},
        {"image_aspect_ratio_filter": None},
        {"image_shape_filter": None},
        {"image_size_filter": None},
        {"image_deduplicator": {"method": "phash"}},
        {"document_minhash_deduplicator": {"tokenization": "character", "num_permutations": 128}},
    ],
}
"""Its language filter is left out: it wants to download the model that ours has beside the code."""


def run(work: Path) -> list[Figure]:
    images = photos()
    pool = photo_pool(work / "pool", images, COPIES)
    files = _files(work / "files", images * COPIES)
    rows = work / "rows.jsonl"
    texts = itertools.cycle(captions())
    rows.write_text("".join(json.dumps({"text": t, "images": [f]}) + "\n" for t, f in zip(texts, files)))  # noqa: B905
    few = photo_pool(work / "few", images[:FEW], WORKERS)
    whole, start = best_of(2, lambda: measure(pool), lambda: measure(few))
    ours = Ours(whole, start)
    cleanvision = run_peer(peer_python("cleanvision", CLEANVISION), FIND_ISSUES, str(work / "files"))
    if cleanvision["samples"] != len(files):
        raise RuntimeError(f"CleanVision looked at {cleanvision['samples']} of {len(files)} photos")
    with_text = "the language filter left out: its model is not at hand without a network; ours tells the language too"
    return [
        _figure("CleanVision", len(files), ours, cleanvision["seconds"], "all of its issue types"),
        _figure("a Data-Juicer recipe", len(files), ours, _data_juicer(work, rows), with_text),
    ]


class Ours(NamedTuple):
    """Our seconds."""

    whole: float
    start: float  # of it, for starting the workers

    @property
    def running(self) -> float:
        return self.whole - self.start


def _figure(peer: str, samples: int, ours: Ours, theirs: float, note: str) -> Figure:
    detail = (
        f"{samples:,} photos: {samples / ours.running:,.0f}/s against {samples / theirs:,.0f}/s, the start on neither "
        f"side; {theirs / ours.whole:.1f} times if the {ours.start:.1f} s for ours count; {note}"
    )
    return Figure(f"the features of {peer}, against it", theirs / ours.running, "x", at_least=5, detail=detail)


def _files(folder: Path, images: list[bytes]) -> list[str]:
    folder.mkdir()
    for number, image in enumerate(images):
        (folder / f"{number:06d}.jpg").write_bytes(image)
    return [str(path) for path in sorted(folder.iterdir())]


def _data_juicer(work: Path, rows: Path) -> float:
    """Seconds of its operators by its own log, without its start and its export."""
    few = work / "few.jsonl"
    few.write_text("".join(rows.read_text().splitlines(keepends=True)[:8]))
    program = peer_python("data-juicer", DATA_JUICER).parent / "dj-process"
    said = ""
    for data in (few, rows):  # it installs what it lacks on its first run
        config = work / f"{data.stem}.json"
        out = {"dataset_path": str(data), "export_path": str(work / data.stem / "out.jsonl")}
        config.write_text(json.dumps(RECIPE | out))
        command = [str(program), "--config", str(config)]
        done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = done.stdout
    found = re.search(r"All OPs are done in ([\d.]+)s", said)
    if found is None:
        raise RuntimeError(f"Data-Juicer did not say how long it took: {said[-500:]}")
    return float(found[1])
