"""Pools of real photos and captions for the benchmarks."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq


def photos() -> list[bytes]:
    """400 JPEG photos, mostly of 500 x 375 pixels and about 110 kB."""
    return pq.read_table(_data() / "photos.parquet", columns=["jpg"])["jpg"].to_pylist()


@cache
def captions() -> list[str]:
    """2,500 captions that people wrote."""
    rows = pq.read_table(_data() / "captioned.parquet", columns=["captions"])["captions"].to_pylist()
    return list(itertools.chain.from_iterable(rows))


def photo_pool(folder: Path, images: Sequence[bytes], shards: int, suffix: str = "jpg") -> Path:
    """A pool whose shards hold every image once, each with a caption. Shards are one file under several names."""
    folder.mkdir(parents=True)
    first = folder / "00000.tar"
    with tarfile.open(first, "w") as tar:
        for number, (image, caption) in enumerate(zip(images, itertools.cycle(captions()))):
            for name, data in ((f"{number:09d}.{suffix}", image), (f"{number:09d}.txt", caption.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    for number in range(1, shards):
        (folder / f"{number:05d}.tar").hardlink_to(first)
    return folder


def _data() -> Path:
    return Path(os.environ.get("CURATE_BENCH_DATA", "../shared/data"))
