"""Measuring a pool against CleanVision and a Data-Juicer recipe that tell the same things of the same photos.

Each peer gets the samples as it likes them, files in a folder, its own two processes, and times itself without its
start; ours reads shards, and its time begins with the start of its processes. All our features are measured for both,
also those that a peer has not (the language of captions; for CleanVision everything of captions).
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.bench.bench_measure import WORKERS, measure
from tests.bench.figure import Figure, timed
from tests.bench.peers import peer_python, run_peer
from tests.bench.photo_pool import captions, photo_pool, photos

COPIES = 3
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
    rows.write_text("".join(json.dumps({"text": captions()[n], "images": [f]}) + "\n" for n, f in enumerate(files)))
    ours = min(timed(lambda: measure(pool))[0] for _ in range(2))
    cleanvision = run_peer(peer_python("cleanvision", CLEANVISION), FIND_ISSUES, str(work / "files"))
    if cleanvision["samples"] != len(files):
        raise RuntimeError(f"CleanVision looked at {cleanvision['samples']} of {len(files)} photos")
    with_text = "the language filter left out: its model is not at hand without a network; ours tells the language too"
    return [
        _figure("CleanVision", len(files), ours, cleanvision["seconds"], "all of its issue types"),
        _figure("a Data-Juicer recipe", len(files), ours, _data_juicer(work, rows), with_text),
    ]


def _figure(peer: str, samples: int, ours: float, theirs: float, note: str) -> Figure:
    detail = f"{samples:,} photos: {samples / ours:,.0f}/s against {samples / theirs:,.0f}/s; {note}"
    return Figure(f"the features of {peer}, against it", theirs / ours, "x", at_least=5, detail=detail)


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
