"""From pairs to a pool: fetches images with img2dataset, retries what may succeed, accounts for all."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.acquire.opener import may_succeed_later, reason_of
from curate.acquire.pairs import pair_uid, write_json
from curate.acquire.shards import ShardLimits, fetch_shard, shard_name, start_worker
from curate.errors import RequestError, WorkError

_LOG = logging.getLogger(__name__)
_EXTRA = ("page_url", "caption_source", "page_language")  # columns that go along into the pool, if there
REPORT = "download.json"
_WORK = ".download"  # folder in the pool: the request, the lists of each round, unfinished shards


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """How images are downloaded. Times in seconds, sizes in bytes and pixels."""

    allow_private: bool = False  # fetch from loopback and private addresses too
    retries: int = 2  # rounds after the first, each for what failed and may succeed later
    retry_pause: float = 2.0  # before the first of them; doubles each time
    processes: int | None = None  # default: one per core
    threads: int = 32  # per process
    timeout: float = 10.0  # for connecting and for each wait for data
    total_timeout: float = 60.0  # for one image
    max_bytes: int = 30_000_000  # of one file
    min_side: int = 0  # of an image's shorter side; filters decide better later, so nothing is refused
    max_pixels: int = 200_000_000
    max_aspect_ratio: float = math.inf
    samples_per_shard: int = 10_000
    user_agent: str = "curate"
    url_column: str = "url"
    caption_column: str = "caption"


# What does not change which samples arrive may change between a run and its resumption.
_NOT_IN_REQUEST = ("retry_pause", "processes", "threads", "timeout", "total_timeout")


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
    seconds: float


def download(pairs: Path, pool: Path, limits: DownloadLimits | None = None) -> DownloadReport:
    """Downloads the images of the Parquet file `pairs` into the folder `pool` (NNNNN.tar, .parquet,
    _stats.json).

    Needs the columns url and caption (see DownloadLimits for other names); a pair without `uid` gets one.
    Images keep their bytes. A run that was cut off resumes; one that was finished returns its report at once.
    Pairs that failed in one round and arrived in a later one stand in both rounds' shard tables: the later
    one counts. Raises RequestError for a wrong request or a pool that another request made, WorkError if
    workers died.
    """
    started = time.monotonic()
    limits = limits or DownloadLimits()
    _check_limits(limits)
    table, repeated = _load(pairs, limits)
    request = _request(table, limits)
    finished = _previous(pool, request)
    if finished is not None:
        return finished
    rounds, errors, by_retry, shards = _all_rounds(table, pool, limits)
    report = DownloadReport(
        asked=table.num_rows,
        repeated=repeated,
        downloaded=table.num_rows - len(errors),
        downloaded_by_retry=by_retry,
        failed=dict(Counter(map(reason_of, errors.values())).most_common()),
        shards=shards,
        rounds=rounds,
        seconds=round(time.monotonic() - started, 3),
    )
    write_json(pool / REPORT, {**asdict(report), "request": request})
    return report


def _check_limits(limits: DownloadLimits) -> None:
    for name in ("threads", "timeout", "total_timeout", "max_bytes", "max_pixels", "samples_per_shard"):
        if getattr(limits, name) <= 0:
            raise RequestError(f"{name}: must be above zero")
    if limits.retries < 0 or (limits.processes is not None and limits.processes < 1):
        raise RequestError("retries must be 0 or more, processes 1 or more")


def _load(pairs: Path, limits: DownloadLimits) -> tuple[pa.Table, int]:
    """The pairs as img2dataset wants them, each uid once; and how many rows were repeated."""
    try:
        names = pq.read_schema(pairs).names
    except (OSError, pa.ArrowInvalid) as error:
        raise RequestError(f"{pairs}: cannot be read as a Parquet file ({error})") from error
    for column in (limits.url_column, limits.caption_column):
        if column not in names:
            raise RequestError(f"{pairs}: has no column {column!r}; it has {', '.join(names)}")
    extra = [name for name in ("uid", *_EXTRA) if name in names]
    table = pq.read_table(pairs, columns=[*extra, limits.url_column, limits.caption_column])
    urls, captions = (
        ["" if value is None else str(value) for value in table[column].to_pylist()]
        for column in (limits.url_column, limits.caption_column)
    )
    given = table["uid"].to_pylist() if "uid" in extra else [None] * len(urls)
    uids = [str(uid) if uid else pair_uid(url, text) for uid, url, text in zip(given, urls, captions, strict=True)]
    first = sorted({uid: row for row, uid in reversed(list(enumerate(uids)))}.values())
    columns: dict[str, Any] = {"uid": pa.array(uids, pa.string())}
    columns |= {name: table[name].cast(pa.string()) for name in extra if name != "uid"}
    columns |= {"caption": pa.array(captions, pa.string()), "url": pa.array(urls, pa.string())}
    return pa.table(columns).take(pa.array(first, pa.int64())), len(uids) - len(first)


def _request(table: pa.Table, limits: DownloadLimits) -> dict[str, Any]:
    """What was asked for, comparable with an earlier run's: the settings and a digest of the pairs."""
    digest = hashlib.sha256()
    for batch in table.to_batches(max_chunksize=65_536):
        digest.update(json.dumps(batch.to_pydict(), sort_keys=True).encode())
    settings = {key: value for key, value in asdict(limits).items() if key not in _NOT_IN_REQUEST}
    settings["max_aspect_ratio"] = str(limits.max_aspect_ratio)  # infinity is no JSON
    return {"pairs": digest.hexdigest(), **settings}


def _previous(pool: Path, request: dict[str, Any]) -> DownloadReport | None:
    """The report of the same request if it is finished; makes the pool if there is none.

    Raises RequestError if the folder holds anything else.
    """
    marker = pool / _WORK / "request.json"
    if not marker.exists():
        if pool.exists() and (not pool.is_dir() or any(pool.iterdir())):
            raise RequestError(f"{pool}: exists and was not made by curate download; name a new folder")
        marker.parent.mkdir(parents=True)
        write_json(marker, request)
        return None
    before = json.loads(marker.read_text(encoding="utf-8"))
    changed = [key for key in request if before.get(key) != request[key]]
    if changed:
        raise RequestError(f"{pool}: was made by another request ({changed[0]} differs); name a new folder")
    if not (pool / REPORT).exists():
        return None
    report = json.loads((pool / REPORT).read_text(encoding="utf-8"))
    return DownloadReport(**{name: report[name] for name in DownloadReport.__slots__})


def _all_rounds(table: pa.Table, pool: Path, limits: DownloadLimits) -> tuple[int, dict[str, str], int, int]:
    """(rounds, error text by uid of what failed in the end, arrived in later rounds, shards with samples)."""
    context = multiprocessing.get_context("forkserver")  # safe from a process that has threads
    workers = min(limits.processes or os.cpu_count() or 1, _shard_count(table, limits))
    log = pool / _WORK / "worker.log"
    pending, errors, first_shard, rounds, by_retry = table, dict[str, str](), 0, 0, 0
    executor = ProcessPoolExecutor(max(1, workers), context, start_worker, (log,))
    try:
        while pending.num_rows:
            if rounds:
                time.sleep(limits.retry_pause * 2 ** (rounds - 1))
            shards = range(first_shard, first_shard + _shard_count(pending, limits))
            _round(executor, pending, shards, rounds, pool, limits)
            failed = _failures(pool, shards)
            by_retry += (pending.num_rows - len(failed)) if rounds else 0
            for uid in pending["uid"].to_pylist():
                errors.pop(uid, None)
            errors |= failed
            first_shard, rounds = shards.stop, rounds + 1
            if rounds > limits.retries:
                break
            again = [may_succeed_later(failed.get(uid, "")) for uid in pending["uid"].to_pylist()]
            pending = pending.filter(pa.array(again, pa.bool_()))
    except BrokenProcessPool as error:
        raise WorkError(f"a download worker died (see {log}); run the same command to resume") from error
    except BaseException:
        for process in list((getattr(executor, "_processes", None) or {}).values()):
            process.terminate()  # do not wait for thousands of downloads after an interrupt
        raise
    finally:
        executor.shutdown(cancel_futures=True)
    return rounds, errors, by_retry, len(list(pool.glob("[0-9]*.tar")))


def _shard_count(table: pa.Table, limits: DownloadLimits) -> int:
    return math.ceil(table.num_rows / limits.samples_per_shard)


def _round(
    executor: ProcessPoolExecutor,
    pending: pa.Table,
    shards: range,
    number: int,
    pool: Path,
    limits: DownloadLimits,
) -> None:
    """Downloads the pending rows as the given shards, but for shards that an earlier run finished."""
    rows = pool / _WORK / f"round-{number}.parquet"
    temporary = rows.with_suffix(".tmp")
    pq.write_table(pending, temporary, row_group_size=limits.samples_per_shard)
    temporary.replace(rows)
    of_shard = ShardLimits(**{name: getattr(limits, name) for name in ShardLimits.__slots__})
    futures = {
        executor.submit(fetch_shard, rows, shard - shards.start, shard, pool, of_shard): shard
        for shard in shards
        if not (pool / f"{shard_name(shard)}_stats.json").exists()
    }
    for future in as_completed(futures):
        try:
            done, asked = future.result()
        except BrokenProcessPool:
            raise
        except Exception as error:  # a full disk, a file that someone removed: nothing to go on with
            raise WorkError(f"shard {shard_name(futures[future])}: {error!r}") from error
        _LOG.info("shard %s: %d of %d downloaded", shard_name(futures[future]), done, asked)


def _failures(pool: Path, shards: range) -> dict[str, str]:
    """uid -> error text of all rows of the shards that have no image."""
    failed: dict[str, str] = {}
    for shard in shards:
        columns = pq.read_table(
            pool / f"{shard_name(shard)}.parquet", columns=["uid", "status", "error_message"]
        ).to_pydict()
        for uid, status, message in zip(*columns.values(), strict=True):
            if status != "success":
                failed[uid] = message or "other: no message"
    return failed
