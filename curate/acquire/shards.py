"""Downloads one shard in a worker process, with img2dataset's Downloader, and puts it into the pool when
whole.

img2dataset's own entry point is not used: it takes over the process's interrupt handler, starts a logging
process and trusts file names to know what was done. Its Downloader and its WebDataset writer do the work
here.
"""

from __future__ import annotations

import json
import os
import tarfile
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.acquire.failures import reason_of
from curate.acquire.header import EXPECTED, HeaderCheck
from curate.acquire.opener import SKIP, OpenerLimits, safe_opener
from curate.acquire.whole import FACTS, ShardFacts, file_facts
from curate.storage import Folder

KEY_DIGITS = 5  # of a shard's number in file names and keys, as img2dataset writes them


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
    robots: bool


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to make."""

    shard: int
    rows: str  # a local Parquet file with the rows of the round …
    group: int  # … of which this row group is the shard's
    digest: str  # names the rows and the request: what the shard must have been made of
    later: tuple[str, ...]  # the lists of later rounds: what they hold is left to them
    scratch: str  # a local folder of this run
    pool: Folder


def shard_name(shard: int) -> str:
    """The shard's file name without its ending, as "00012"."""
    return f"{shard:0{KEY_DIGITS}d}"


def start_worker(log: str, environment: Mapping[str, str], folder: str) -> None:
    """Prepares a worker process: it lives as its parent does, and what img2dataset prints goes to a log file.

    `environment` and `folder` are the parent's: the server that workers are forked from may be older.
    """
    import multiprocessing
    import threading

    os.environ.clear()
    os.environ.update(environment)
    os.environ.update(NO_ALBUMENTATIONS_UPDATE="1", WANDB_MODE="disabled", WANDB_SILENT="true")
    os.chdir(folder)
    with Path(log).open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)  # the parent was killed: another run may be at work already

    threading.Thread(target=follow, daemon=True).start()


def fetch_shard(task: ShardTask, limits: ShardLimits) -> tuple[int, int]:
    """Downloads the rows of a shard and puts its files into the pool.

    Gives (samples downloaded, samples asked). The files appear in the pool complete, `_stats.json` last;
    samples are in the order of the rows, and the same answers give the same bytes.
    """
    from img2dataset.downloader import Downloader
    from img2dataset.writer import WebDatasetSampleWriter

    of_one = OpenerLimits(limits.allow_private, limits.timeout, limits.total_timeout, limits.max_bytes, limits.robots)
    urllib.request.install_opener(safe_opener(of_one, limits.user_agent))  # this process only downloads
    wanted = pq.ParquetFile(task.rows).read_row_group(task.group)
    handover = Path(task.scratch) / f"{task.shard}.arrow"
    rows = _without(wanted, task.later)
    with pa.OSFile(str(handover), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    downloader = Downloader(
        sample_writer_class=WebDatasetSampleWriter,
        resizer=HeaderCheck(limits),
        thread_count=limits.threads,
        save_caption=True,
        extract_exif=False,
        output_folder=task.scratch,
        column_list=wanted.column_names,
        timeout=limits.timeout,
        number_sample_per_shard=limits.samples_per_shard,
        oom_shard_count=KEY_DIGITS,
        compute_hash="sha256",
        verify_hash_type=None,  # HeaderCheck does: here, a row without a hash would be a wrong file
        encode_format="jpg",
        retries=0,  # retried in later rounds, not at once: the server needs the pause
        user_agent_token=limits.user_agent,
        disallowed_header_directives=None,  # the opener asks
        blurring_bbox_col=EXPECTED if EXPECTED in wanted.column_names else None,
    )
    downloader.download_shard((task.shard, str(handover)))
    return _finish(wanted, task, limits.samples_per_shard), wanted.num_rows


def _without(wanted: pa.Table, later: tuple[str, ...]) -> pa.Table:
    """The rows, with the addresses of those that later rounds have made no addresses."""
    if not later:
        return wanted
    uids = pa.concat_tables([pq.read_table(path, columns=["uid"]) for path in later])["uid"]
    theirs = pc.is_in(wanted["uid"], value_set=uids)
    at = wanted.column_names.index("url")
    return wanted.set_column(at, "url", pc.if_else(theirs, SKIP, wanted["url"]))


def _finish(wanted: pa.Table, task: ShardTask, samples_per_shard: int) -> int:
    """Sorts the shard's files by key and moves them into the pool; gives the number of samples with an image."""
    name, scratch, pool = shard_name(task.shard), Path(task.scratch), task.pool
    table = _complete(pq.read_table(scratch / f"{name}.parquet"), wanted, task.shard, samples_per_shard)
    table = table.sort_by("key")
    table = table.set_column(table.column_names.index("url"), "url", wanted["url"])
    tar, parquet, stats = (scratch / f"{name}.{ending}" for ending in ("sorted.tar", "sorted.parquet", "facts.json"))
    pq.write_table(table, parquet, compression="zstd")
    done = int(pc.sum(pc.equal(table["status"], "success")).as_py() or 0)
    if done:
        _sort_tar(scratch / f"{name}.tar", tar)
    facts = ShardFacts(task.digest, *(file_facts(tar) if done else (0, "")), *file_facts(parquet))
    stats.write_text(json.dumps(_stats(scratch / f"{name}_stats.json", table, facts), indent=4), encoding="utf-8")
    for old in (f"{name}_stats.json", f"{name}.tar"):  # of an earlier try; without its stats it is not taken for whole
        if pool.exists(old):
            pool.fs.rm_file(pool.path(old))
    for file, part in ((f"{name}.tar", tar), (f"{name}.parquet", parquet), (f"{name}_stats.json", stats)):
        if part.exists():
            pool.put(file, str(part))
    for leftover in (*scratch.glob(f"{name}.*"), scratch / f"{name}_stats.json"):
        leftover.unlink(missing_ok=True)
    return done


def _stats(path: Path, table: pa.Table, facts: ShardFacts) -> dict[str, Any]:
    """img2dataset's counts of the shard, with failures by reason, and what tells whether its files are whole."""
    reasons = Counter("success" if m is None else reason_of(m) for m in table["error_message"].to_pylist())
    stats = json.loads(path.read_text(encoding="utf-8"))
    return {**stats, "status_dict": dict(reasons.most_common()), FACTS: facts.as_dict()}


def _complete(found: pa.Table, wanted: pa.Table, shard: int, samples_per_shard: int) -> pa.Table:
    """Adds a failure for each row that img2dataset lost: at an error it did not expect, it goes on."""
    from math import ceil, log10

    from img2dataset.downloader import compute_key

    if found.num_rows == wanted.num_rows:
        return found
    digits = ceil(log10(samples_per_shard))
    present = set(found["key"].to_pylist())
    keys = [compute_key(row, shard, digits, KEY_DIGITS) for row in range(wanted.num_rows)]
    lost = [
        {**row, "key": key, "status": "failed_to_download", "error_message": "other: lost by img2dataset"}
        for key, row in zip(keys, wanted.to_pylist(), strict=True)
        if key not in present
    ]
    return pa.concat_tables([found, pa.Table.from_pylist(lost, found.schema)])


def _sort_tar(source: Path, target: Path) -> None:
    """Copies the members in the order of their keys, without the times: downloads finish in any order."""
    layout = tarfile.USTAR_FORMAT
    with tarfile.open(source, "r:") as tar, tarfile.open(target, "w", format=layout) as sorted_tar:
        # sorted() is stable: a sample's members keep their order
        for member in sorted(tar.getmembers(), key=lambda member: member.name.split(".", 1)[0]):
            info = tarfile.TarInfo(member.name)
            info.size, info.mode = member.size, 0o644
            sorted_tar.addfile(info, tar.extractfile(member))
