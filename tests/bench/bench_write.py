"""Writing a selection: against `cp` of the kept bytes, and against DataComp's resharder on the same uids."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.curation import measure, write_dataset
from curate.engines import open_engine
from curate.pool import open_pool
from curate.recipe import parse_recipe
from curate.selection import SELECTION
from curate.storage import Folder
from tests.bench.figure import Figure, timed
from tests.bench.peers import PEERS, peer_python

DATA = Path(os.environ.get("CURATE_BENCH_DATA", "../shared/data"))
DATACOMP = Path(os.environ.get("CURATE_BENCH_DATACOMP", str(PEERS / "datacomp")))
NEEDS = ["webdataset==0.2.31", "cloudpathlib==0.13.0", "pysimdjson", "img2dataset==1.47.0", "tqdm", "pandas"]
PER_SHARD = 5000
ROUNDS = 3
RECIPE = {"filters": ["image_size", "caption_rules", "exact_duplicates"]}


def run(work: Path) -> list[Figure]:
    photos = pq.read_table(DATA / "photos.parquet", columns=["jpg"])["jpg"].to_pylist()
    cifar = pq.read_table(DATA / "cifar10-train.parquet", columns=["jpg"])["jpg"].to_pylist()
    figures = _against_cp(work / "photos", "photos, 115 kB a sample", photos, 10_000)
    figures += _against_cp(work / "cifar", "CIFAR images, 3.5 kB a sample", cifar, 50_000)
    return figures + _against_datacomp(work / "photos")


def _against_cp(work: Path, what: str, images: Sequence[bytes], samples: int) -> list[Figure]:
    """A random half is kept. The floor copies the very bytes that were written, from one file to another."""
    _write_pool(work / "pool", images, samples)
    engine = open_engine("local")
    measured = measure(open_pool(str(work / "pool")), parse_recipe(RECIPE), engine)
    keep = _select_half(work, measured.tasks)
    ours, floor = [], []
    for number in range(ROUNDS):
        out = work / f"out-{number}"
        out.mkdir()
        (out / "selection.parquet").write_bytes((work / "selection.parquet").read_bytes())
        seconds, shards = timed(lambda: write_dataset(engine, measured.tasks, Folder(str(out)), 10_000))  # noqa: B023
        ours.append(seconds)
        whole = work / "whole"
        with whole.open("wb") as file:
            for shard in shards:
                file.write((out / "shards" / f"{shard.name}.tar").read_bytes())
        floor.append(timed(lambda: subprocess.run(["cp", whole, work / "copy"], check=True))[0])  # noqa: B023
        size = whole.stat().st_size
        (work / "copy").unlink()
    engine.close()
    detail = (
        f"{size / min(ours) / 1e6:,.0f} MB/s against {size / min(floor) / 1e6:,.0f}; {keep:,} of {samples:,} kept at "
        f"random, {size / 1e6:,.0f} MB; tars, digests and features written, on two threads"
    )
    return [Figure(f"writing {what}, against cp of the kept bytes", min(floor) / min(ours), "x", 0.6, detail=detail)]


def _against_datacomp(work: Path) -> list[Figure]:
    name = "writing photos, against DataComp's resharder"
    script = DATACOMP / "resharder.py"
    if not script.exists():
        return [
            Figure(
                name, float("nan"), "x", detail=f"not run: no {script}; put a checkout of mlfoundations/datacomp there"
            )
        ]
    uids = pc.filter(
        pq.read_table(work / "selection.parquet")["uid"], pq.read_table(work / "selection.parquet")["keep"]
    )
    pairs = np.array(sorted((int(u[:16], 16), int(u[16:], 16)) for u in uids.to_pylist()), np.dtype("u8,u8"))
    np.save(work / "subset.npy", pairs)
    python = peer_python("datacomp-resharder", NEEDS)
    out = work / "datacomp"
    out.mkdir()
    command = [
        str(python),
        str(script),
        "-i",
        str(work / "pool"),
        "-o",
        str(out),
        "-s",
        str(work / "subset.npy"),
        "-j",
        "2",
    ]
    theirs, _ = timed(lambda: subprocess.run(command, check=True, capture_output=True))
    engine = open_engine("local")
    measured = measure(open_pool(str(work / "pool")), parse_recipe(RECIPE), engine)
    target = work / "ours"
    target.mkdir()
    (target / "selection.parquet").write_bytes((work / "selection.parquet").read_bytes())
    ours, shards = timed(lambda: write_dataset(engine, measured.tasks, Folder(str(target)), 10_000))
    engine.close()
    size = sum(shard.bytes for shard in shards)
    written = sum(file.stat().st_size for file in out.rglob("*.tar"))
    detail = f"{size / ours / 1e6:,.0f} MB/s against {written / theirs / 1e6:,.0f}, theirs with its start, 2 workers"
    return [Figure(name, (size / ours) / (written / theirs), "x", at_least=3, detail=detail)]


def _select_half(work: Path, tasks: Sequence) -> int:
    """Write a selection that keeps each sample or not by a coin; returns how many it keeps."""
    random, kept = np.random.default_rng(0), 0
    with pq.ParquetWriter(work / "selection.parquet", SELECTION) as writer:
        for task in tasks:
            (folder,) = [folder for folder, feature in task.features if feature.name == "index"]
            index = pq.read_table(task.cache.path(f"{folder}/{task.shard.name[:-4]}.parquet"), columns=["uid", "key"])
            keep = random.random(len(index)) < 0.5
            kept += int(keep.sum())
            said = pa.array(np.where(keep, None, "coin"), pa.string())
            shard = pa.repeat(pa.scalar(task.shard.name), len(index))
            columns = [index["uid"], shard, index["key"], pa.array(keep), said, said, pa.nulls(len(index), pa.string())]
            writer.write_table(pa.Table.from_arrays(columns, schema=SELECTION))
    return kept


def _write_pool(folder: Path, images: Sequence[bytes], samples: int) -> None:
    """A pool with uids, each image again and again under another key."""
    folder.mkdir(parents=True)
    for first in range(0, samples, PER_SHARD):
        name = f"{first // PER_SHARD:08d}"
        uids = []
        with tarfile.open(folder / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(first, min(first + PER_SHARD, samples)):
                uids.append(uuid.UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC834 % (1 << 128)).hex)
                details = json.dumps({"uid": uids[-1], "caption": f"a photo of thing number {number}"}).encode()
                caption = f"a photo of thing number {number}".encode()
                for suffix, data in (("jpg", images[number % len(images)]), ("json", details), ("txt", caption)):
                    info = tarfile.TarInfo(f"{number:012d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        (folder / f"{name}_stats.json").write_text(json.dumps({"successes": len(uids)}))
