"""Downloads one shard in a worker process, with img2dataset's Downloader, and puts it into the pool when
whole.

img2dataset's own entry point is not used: it takes over the process's interrupt handler, starts a logging
process and trusts file names to know what was done. Its Downloader and its WebDataset writer do the work
here.
"""

from __future__ import annotations

import io
import os
import tarfile
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.acquire.opener import safe_opener

KEY_DIGITS = 5  # of a shard's number in file names and keys, as img2dataset writes them
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_DISALLOWED = ["noai", "noimageai", "noindex", "noimageindex"]  # X-Robots-Tag directives that are honoured


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """How a shard is downloaded. Times in seconds, sizes in bytes and pixels."""

    allow_private: bool
    threads: int
    timeout: float
    total_timeout: float
    max_bytes: int
    min_side: int
    max_pixels: int
    max_aspect_ratio: float
    samples_per_shard: int
    user_agent: str


@cache
def _readable_formats() -> tuple[str, ...]:
    """Those of the formats that this PIL has a reader for; naming another would be an error."""
    from PIL import Image

    Image.init()
    Image.MAX_IMAGE_PIXELS = None  # ShardLimits has its own limit
    return tuple(name for name in _FORMATS if name in Image.OPEN)


class HeaderCheck:
    """Stands in for img2dataset's Resizer: keeps the original bytes, and reads only the header for the size.

    Nothing is decoded, so a decompression bomb is just a large number in a header.
    """

    def __init__(self, limits: ShardLimits) -> None:
        self._limits = limits

    def __call__(self, stream: io.BytesIO, boxes: object = None) -> tuple[Any, ...]:
        """(bytes, width, height, original width, original height, error text)"""
        from PIL import Image

        content = stream.read()
        try:
            with Image.open(io.BytesIO(content), formats=_readable_formats()) as image:
                width, height = image.size
        except Exception as error:  # PIL's readers raise nearly anything on hostile bytes
            return (*[None] * 5, f"not_an_image: {type(error).__name__}")
        problem = self._problem(width, height)
        if problem:
            return (*[None] * 5, f"{problem}: {width}×{height} pixels")
        return content, width, height, width, height, None

    def _problem(self, width: int, height: int) -> str | None:
        shorter, longer = sorted((width, height))
        if shorter < max(1, self._limits.min_side):
            return "too_small"
        too_long = longer / shorter > self._limits.max_aspect_ratio
        return "too_large" if too_long or width * height > self._limits.max_pixels else None


def shard_name(shard: int) -> str:
    """The shard's file name without its ending, as "00012"."""
    return f"{shard:0{KEY_DIGITS}d}"


def start_worker(log: Path) -> None:
    """Prepares a worker process: what img2dataset prints goes to a log file, and its imports stay offline."""
    os.environ.update(NO_ALBUMENTATIONS_UPDATE="1", WANDB_MODE="disabled", WANDB_SILENT="true")
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)


def fetch_shard(rows: Path, group: int, shard: int, pool: Path, limits: ShardLimits) -> tuple[int, int]:
    """Downloads row group `group` of the Parquet file `rows` as the pool's shard number `shard`.

    Gives (samples downloaded, samples asked). The files appear in the pool complete, `_stats.json` last;
    samples are in the order of the rows, and the same answers give the same bytes.
    """
    from img2dataset.downloader import Downloader
    from img2dataset.writer import WebDatasetSampleWriter

    opener = safe_opener(
        allow_private=limits.allow_private,
        timeout=limits.timeout,
        total=limits.total_timeout,
        max_bytes=limits.max_bytes,
    )
    urllib.request.install_opener(opener)  # this process only downloads
    wanted = pq.ParquetFile(rows).read_row_group(group)
    scratch = rows.parent / "tmp"
    scratch.mkdir(exist_ok=True)
    handover = scratch / f"{shard}.arrow"
    with pa.OSFile(str(handover), "wb") as sink, pa.ipc.new_file(sink, wanted.schema) as writer:
        writer.write_table(wanted)
    downloader = Downloader(
        sample_writer_class=WebDatasetSampleWriter,
        resizer=HeaderCheck(limits),
        thread_count=limits.threads,
        save_caption=True,
        extract_exif=False,
        output_folder=str(scratch),
        column_list=wanted.column_names,
        timeout=limits.timeout,
        number_sample_per_shard=limits.samples_per_shard,
        oom_shard_count=KEY_DIGITS,
        compute_hash="sha256",
        verify_hash_type=None,
        encode_format="jpg",
        retries=0,  # retried in later rounds, not at once: the server needs the pause
        user_agent_token=limits.user_agent,
        disallowed_header_directives=_DISALLOWED,
    )
    downloader.download_shard((shard, str(handover)))
    done = _finish(wanted, scratch, shard, pool, limits.samples_per_shard)
    return done, wanted.num_rows


def _finish(wanted: pa.Table, scratch: Path, shard: int, pool: Path, samples_per_shard: int) -> int:
    """Sorts the shard's files by key and moves them into the pool; gives the number of samples with an image."""
    name = shard_name(shard)
    table = _complete(pq.read_table(scratch / f"{name}.parquet"), wanted, shard, samples_per_shard)
    table = table.sort_by("key")
    pq.write_table(table, scratch / f"{name}.sorted.parquet", compression="zstd")
    _sort_tar(scratch / f"{name}.tar", scratch / f"{name}.sorted.tar")
    done = int(pc.sum(pc.equal(table["status"], "success")).as_py() or 0)
    if done:
        (scratch / f"{name}.sorted.tar").replace(pool / f"{name}.tar")
    (scratch / f"{name}.sorted.parquet").replace(pool / f"{name}.parquet")
    (scratch / f"{name}_stats.json").replace(pool / f"{name}_stats.json")
    for leftover in scratch.glob(f"{name}.*"):
        leftover.unlink()
    return done


def _complete(found: pa.Table, wanted: pa.Table, shard: int, samples_per_shard: int) -> pa.Table:
    """Adds a failure for each row that img2dataset lost: at an error it did not expect, it goes on."""
    from math import ceil, log10

    from img2dataset.downloader import compute_key

    digits = ceil(log10(samples_per_shard))
    present = set(found["key"].to_pylist())
    keys = [compute_key(row, shard, digits, KEY_DIGITS) for row in range(wanted.num_rows)]
    lost = [
        {**row, "key": key, "status": "failed_to_download", "error_message": "other: lost by img2dataset"}
        for key, row in zip(keys, wanted.to_pylist(), strict=True)
        if key not in present
    ]
    return pa.concat_tables([found, pa.Table.from_pylist(lost, found.schema)]) if lost else found


def _sort_tar(source: Path, target: Path) -> None:
    """Copies the members in the order of their keys, without the times: downloads finish in any order."""
    layout = tarfile.USTAR_FORMAT
    with tarfile.open(source, "r:") as tar, tarfile.open(target, "w", format=layout) as sorted_tar:
        # sorted() is stable: a sample's members keep their order
        for member in sorted(tar.getmembers(), key=lambda member: member.name.split(".", 1)[0]):
            info = tarfile.TarInfo(member.name)
            info.size, info.mode = member.size, 0o644
            sorted_tar.addfile(info, tar.extractfile(member))
