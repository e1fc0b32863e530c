"""From pairs to a pool: fetches images with img2dataset, retries what may succeed, accounts for all."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate import metrics
from curate.acquire.attrition import compare, shifts
from curate.acquire.failures import reason_of
from curate.acquire.rounds import WORK, Outcome, all_rounds, among, scratch_folder
from curate.acquire.shards import ShardLimits, shard_name
from curate.acquire.wanted import load_pairs, table_digest
from curate.acquire.whole import sizes
from curate.errors import RequestError, WorkError
from curate.storage import Folder

_LOG = logging.getLogger(__name__)
REPORT = "download.json"
_MARKER = f"{WORK}/request.json"


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """How images are downloaded. Times in seconds, sizes in bytes and pixels."""

    allow_private: bool = False  # fetch from loopback and private addresses too
    retries: int = 2  # rounds after the first, each for what failed and may succeed later
    retry_pause: float = 2.0  # before the first of them; doubles each time
    retry_after_limit: float = 120.0  # a host that asks to wait longer (Retry-After) is not asked again
    processes: int | None = None  # default: one per core
    threads: int = 32  # per process
    timeout: float = 10.0  # for connecting and for each wait for data
    total_timeout: float = 60.0  # for one image, redirects and all
    max_bytes: int = 30_000_000  # of one file
    min_side: int = 0  # of an image's shorter side; filters decide better later, so nothing is refused
    max_pixels: int = 100_000_000  # what measuring decodes, too
    max_aspect_ratio: float = math.inf
    samples_per_shard: int = 10_000
    user_agent: str = "curate"
    robots: bool = False  # honour the robots.txt of the images' hosts, too
    url_column: str = "url"
    caption_column: str = "caption"
    columns: tuple[str, ...] = ()  # further columns of the pairs that go along into the pool
    compare_with: tuple[str, ...] = ()  # earlier pools, whose success rates are compared with this one's
    verify: bool = False  # look for damage in the finished shards' bytes too, not only at their sizes


# What does not change which samples arrive may change between a run and its resumption; more retries go on.
_NOT_IN_REQUEST = {"retries", "retry_pause", "retry_after_limit", "processes", "threads", "timeout", "total_timeout"}
_NOT_IN_REQUEST |= {"compare_with", "verify"}


@dataclass(frozen=True, slots=True)
class DownloadReport:
    """What became of the pairs: `asked = downloaded + sum(failed)`."""

    asked: int  # pairs, each uid once
    repeated: int  # further rows with a uid that came before
    downloaded: int
    downloaded_by_retry: int  # of those, in a later round
    failed: Mapping[str, int]  # reason -> pairs, most frequent first
    shards: int  # with at least one sample
    rounds: int
    seconds: float  # of this run
    success_rate: float = 0.0  # downloaded / asked
    bytes: int = 0  # of the tars
    images_per_second: float = 0.0  # while shards were downloaded, over all runs
    bytes_per_second: float = 0.0
    redone: int = 0  # shards that were there and not whole
    held_off: int = 0  # failed, and not tried again because the host asked to wait longer than the limit
    shifts: tuple[Mapping[str, Any], ...] = ()  # see curate.acquire.attrition
    compared: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()


def download(pairs: str | Path, pool: str | Path, limits: DownloadLimits | None = None) -> DownloadReport:
    """Downloads the images of the Parquet file `pairs` into `pool` (NNNNN.tar, .parquet, _stats.json).

    Both are paths or URLs of a store such as s3://. Needs the columns url and caption (see DownloadLimits for other
    names); a pair without `uid` gets one. Images keep their bytes. A run that was cut off resumes, shards that are
    damaged are made again; one that was finished returns its report at once. Pairs that failed in one round and arrived
    in a later one stand in both rounds' shard tables: the later one counts.

    Raises RequestError for a wrong request or a pool that another request made, WorkError if workers died or another
    run is at work in the pool.
    """
    started = time.monotonic()
    limits = limits or DownloadLimits()
    _check_limits(limits)
    folder = Folder(str(pool) if "://" in str(pool) else str(Path(pool).absolute()))
    table, repeated, labels = load_pairs(str(pairs), limits.url_column, limits.caption_column, limits.columns)
    request = _request(table, limits)
    _claim(folder, request)
    with _alone(folder):
        finished = None if limits.verify else _finished(folder, limits)
        if finished is not None:
            return finished
        of_shard = ShardLimits(**{name: getattr(limits, name) for name in ShardLimits.__slots__})
        with scratch_folder(folder) as scratch:
            outcome = all_rounds(table, folder, scratch, limits, of_shard, request)
        report, files = _report(table, repeated, labels, folder, outcome, limits, started)
        account = {**asdict(report), "retries": limits.retries, "files": files, "request": request}
        folder.write_json(REPORT, account)
        metrics.downloaded(account, files)
    for warning in report.warnings:
        _LOG.warning("%s", warning)
    return report


def _check_limits(limits: DownloadLimits) -> None:
    for name in ("threads", "timeout", "total_timeout", "max_bytes", "max_pixels", "samples_per_shard"):
        if getattr(limits, name) <= 0:
            raise RequestError(f"{name}: must be above zero")
    if limits.retries < 0 or (limits.processes is not None and limits.processes < 1):
        raise RequestError("retries must be 0 or more, processes 1 or more")
    for earlier in limits.compare_with:
        if not Folder(earlier).exists():
            raise RequestError(f"compare_with: {earlier} does not exist")


def _request(table: pa.Table, limits: DownloadLimits) -> dict[str, Any]:
    """What was asked for, comparable with an earlier run's: the settings and a digest of the pairs."""
    settings = {key: value for key, value in asdict(limits).items() if key not in _NOT_IN_REQUEST}
    settings["max_aspect_ratio"] = str(limits.max_aspect_ratio)  # infinity is no JSON
    if not limits.robots:  # as in the requests of before there was this limit
        del settings["robots"]
    return {"pairs": table_digest(table), **settings, "columns": list(limits.columns)}


def _claim(pool: Folder, request: dict[str, Any]) -> None:
    """Marks a new pool with the request; raises RequestError if the folder holds anything else."""
    if not pool.exists(_MARKER):
        if pool.exists() and (pool.fs.isfile(pool.root) or pool.fs.ls(pool.root, detail=False)):
            raise RequestError(f"{pool.url}: exists and was not made by curate download; name a new folder")
        pool.write_json(_MARKER, request)
        return
    before = pool.read_json(_MARKER)
    changed = [key for key in request if before.get(key) != request[key]]
    if changed:
        raise RequestError(f"{pool.url}: was made by another request ({changed[0]} differs); name a new folder")


@contextmanager
def _alone(pool: Folder) -> Iterator[None]:
    """Keeps a second run out of a local pool; the lock ends with the process. Raises WorkError if it is held."""
    if not pool.is_local:
        yield
        return
    with Path(pool.path(f"{WORK}/lock")).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as held:
            raise WorkError(f"{pool.url}: another curate download is at work there; wait for it") from held
        yield


def _finished(pool: Folder, limits: DownloadLimits) -> DownloadReport | None:
    """The report of the run that finished the pool, if its files are still there and no more retries are asked for."""
    if not pool.exists(REPORT):
        return None
    account = pool.read_json(REPORT)
    there = sizes(pool)
    files = account.get("files")
    if files is None or {name: there.get(name) for name in files} != files or limits.retries > account["retries"]:
        return None
    if {*limits.compare_with} - {one["pool"] for one in account["compared"]}:
        return None  # nothing is fetched again, but compared
    known = {field.name: account.get(field.name, field.default) for field in fields(DownloadReport)}
    if MISSING in known.values():
        return None
    lists = {name: tuple(known[name]) for name in ("shifts", "compared", "warnings")}
    return DownloadReport(**{**known, **lists})


def _report(
    table: pa.Table,
    repeated: int,
    labels: list[str],
    pool: Folder,
    outcome: Outcome,
    limits: DownloadLimits,
    started: float,
) -> tuple[DownloadReport, dict[str, int]]:
    """The account, and the sizes of the pool's tars and tables by name."""
    names = {shard_name(shard) for shard in range(outcome.shards)}
    files = {
        name: size
        for name, size in sorted(sizes(pool).items())
        if name.endswith((".tar", ".parquet")) and name.split(".")[0] in names
    }
    stats = [pool.read_json(f"{name}_stats.json") for name in sorted(names)]
    downloaded, asked = sum(shard["successes"] for shard in stats), table.num_rows
    if downloaded + len(outcome.errors) != asked:
        raise WorkError(f"{pool.url}: {downloaded} images and {len(outcome.errors)} failures are not {asked} pairs")
    failures: Counter[str] = Counter()
    for said in outcome.errors["error"].value_counts().to_pylist():
        failures[reason_of(said["values"])] += said["counts"]
    tars = [size for name, size in files.items() if name.endswith(".tar")]
    busy = _union([(shard["start_time"], shard["end_time"]) for shard in stats])
    failed = among(table["uid"], outcome.errors["uid"]).to_numpy()
    moved = shifts(table, failed, labels)
    compared = [compare(table["uid"], ~failed, earlier) for earlier in limits.compare_with]
    report = DownloadReport(
        asked=asked,
        repeated=repeated,
        downloaded=downloaded,
        downloaded_by_retry=outcome.by_retry,
        failed=dict(failures.most_common()),
        shards=len(tars),
        rounds=outcome.rounds,
        seconds=round(time.monotonic() - started, 3),
        success_rate=round(downloaded / asked, 6) if asked else 0.0,
        bytes=sum(tars),
        images_per_second=round(downloaded / busy, 3) if busy else 0.0,
        bytes_per_second=round(sum(tars) / busy) if busy else 0.0,
        redone=outcome.redone,
        held_off=outcome.held_off,
        shifts=tuple(json.loads(json.dumps(asdict(one))) for one in moved),
        compared=tuple(asdict(one) for one in compared),
        warnings=tuple(filter(None, [*(one.warning() for one in moved), *(one.warning() for one in compared)])),
    )
    return report, files


def _union(spans: list[tuple[float, float]]) -> float:
    """Seconds that lie in at least one of the spans."""
    seconds, until = 0.0, -math.inf
    for start, end in sorted(spans):
        seconds += max(0.0, end - max(start, until))
        until = max(until, end)
    return seconds
