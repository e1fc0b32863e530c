"""The rounds of a download: all pairs, and then again those that failed and may succeed later.

The rows of each round are written down before it begins, and stay what they are: a run that was cut off, or whose
shards were damaged since, makes the same shards again.
"""

from __future__ import annotations

import io
import logging
import math
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.acquire.failures import asked_wait, may_succeed_later
from curate.acquire.shards import ShardLimits, ShardTask, fetch_shard, shard_name, start_worker
from curate.acquire.whole import is_whole, rows_digest, sizes
from curate.errors import WorkError
from curate.storage import Folder

_LOG = logging.getLogger(__name__)
WORK = ".download"  # folder in the pool: the request, the lists of each round, unfinished shards


class RoundLimits(Protocol):
    """What of `DownloadLimits` the rounds go by."""

    @property
    def retries(self) -> int: ...
    @property
    def retry_pause(self) -> float: ...
    @property
    def retry_after_limit(self) -> float: ...
    @property
    def processes(self) -> int | None: ...
    @property
    def samples_per_shard(self) -> int: ...
    @property
    def verify(self) -> bool: ...


_ERRORS = pa.schema([("uid", pa.string()), ("error", pa.string())])


@dataclass(slots=True)
class Outcome:
    """What the rounds came to."""

    rounds: int = 0
    shards: int = 0  # numbers that were given out
    redone: int = 0  # shards that were there and not whole
    errors: pa.Table = field(default_factory=_ERRORS.empty_table)  # what failed in the end: uid, error text
    by_retry: int = 0  # pairs that arrived in later rounds
    held_off: int = 0  # pairs not tried again, because the host asked to wait longer than the limit


@dataclass(frozen=True, slots=True)
class _Run:
    pool: Folder
    scratch: Path
    limits: RoundLimits
    of_shard: ShardLimits
    request: Mapping[str, Any]

    def list_name(self, number: int) -> str:
        return f"{WORK}/round-{number}.parquet"

    def local_list(self, number: int) -> str:
        """The list of a round as a local file that workers read."""
        if self.pool.is_local:
            return self.pool.path(self.list_name(number))
        copy = self.scratch / f"round-{number}.parquet"
        if not copy.exists():
            self.pool.fs.get_file(self.pool.path(self.list_name(number)), str(copy))
        return str(copy)


def all_rounds(
    table: pa.Table, pool: Folder, scratch: Path, limits: RoundLimits, of_shard: ShardLimits, request: Mapping[str, Any]
) -> Outcome:
    """Downloads the table's rows (uid, url, caption, …) into the pool, but for the shards that are whole already.

    Raises WorkError if a worker died or a shard could not be made.
    """
    run, outcome, pending = _Run(pool, scratch, limits, of_shard, request), Outcome(), table
    workers = min(limits.processes or len(os.sched_getaffinity(0)), _shard_count(table, limits))
    log = scratch / "worker.log"
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # which img2dataset loads, and which asks for its version
    context = multiprocessing.get_context("forkserver")  # safe from a process that has threads
    context.set_forkserver_preload(["img2dataset.downloader", "img2dataset.writer"])  # seconds, once and not per worker
    starting = (str(log), dict(os.environ), str(Path.cwd()))
    executor = ProcessPoolExecutor(max(1, workers), context, start_worker, starting)
    try:
        while pending.num_rows:
            shards = range(outcome.shards, outcome.shards + _shard_count(pending, limits))
            outcome.redone += _round(executor, run, pending, outcome.rounds, shards)
            failed = _failures(pool, shards)
            outcome.by_retry += (pending.num_rows - len(failed)) if outcome.rounds else 0
            outcome.errors = pa.concat_tables([without(outcome.errors, pending), failed])
            outcome.shards, outcome.rounds = shards.stop, outcome.rounds + 1
            pending = _next(run, table, outcome)
    except BrokenProcessPool as error:
        said = _tail(log)
        raise WorkError(f"a download worker died; run the same command to resume. It said: {said}") from error
    except BaseException:
        for process in list((getattr(executor, "_processes", None) or {}).values()):
            process.terminate()  # do not wait for thousands of downloads after an interrupt
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        if log.exists():
            pool.put(f"{WORK}/worker.log", str(log))
    return outcome


@contextmanager
def scratch_folder(pool: Folder) -> Iterator[Path]:
    """A local folder of this run alone; on the pool's own disk where the pool is local, so that files can be moved."""
    import tempfile

    if not pool.is_local:
        with tempfile.TemporaryDirectory(prefix="curate-download-") as folder:
            yield Path(folder)
        return
    parent = Path(pool.path(WORK))
    for left in parent.glob("tmp*"):  # by runs that were killed; none is alive, or the lock would be held
        shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix="tmp-", dir=parent)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _shard_count(table: pa.Table, limits: RoundLimits) -> int:
    return math.ceil(table.num_rows / limits.samples_per_shard)


def _round(executor: ProcessPoolExecutor, run: _Run, pending: pa.Table, number: int, shards: range) -> int:
    """Makes those shards of a round that are not whole; gives how many of them had been there."""
    size = run.limits.samples_per_shard
    if not run.pool.exists(run.list_name(number)):
        _write_list(run, pending, number)
    there = sizes(run.pool)
    later: list[str] = []
    while run.pool.exists(run.list_name(number + 1 + len(later))):
        later.append(run.local_list(number + 1 + len(later)))
    tasks, redone = [], 0
    for shard in shards:
        group = shard - shards.start
        digest = rows_digest(run.request, pending["uid"].slice(group * size, size).to_pylist())
        name = shard_name(shard)
        if is_whole(run.pool, name, digest, there, read=run.limits.verify):
            continue
        redone += f"{name}_stats.json" in there
        rows = run.local_list(number)
        tasks.append(ShardTask(shard, rows, group, digest, tuple(later), str(run.scratch), run.pool))
    if redone:
        _LOG.warning("%d shards of round %d were damaged or are of other pairs: made again", redone, number)
    futures = {executor.submit(fetch_shard, task, run.of_shard): task.shard for task in tasks}
    for future in as_completed(futures):
        name = shard_name(futures[future])
        try:
            done, asked = future.result()
        except BrokenProcessPool:
            raise
        except Exception as error:  # a full disk, a store that is gone: nothing to go on with
            raise WorkError(f"shard {name}: {error!r}; run the same command to resume") from error
        _LOG.info("shard %s: %d of %d downloaded", name, done, asked)
    return redone


def _write_list(run: _Run, pending: pa.Table, number: int) -> None:
    with run.pool.writing(run.list_name(number)) as part:
        pq.write_table(pending, part, row_group_size=run.limits.samples_per_shard)


def _next(run: _Run, table: pa.Table, outcome: Outcome) -> pa.Table:
    """The rows of the next round, after the pause before it; none if there is no such round."""
    if run.pool.exists(run.list_name(outcome.rounds)):
        return pq.read_table(run.local_list(outcome.rounds), schema=table.schema)
    errors = pc.dictionary_encode(outcome.errors["error"].combine_chunks())
    texts = errors.dictionary.to_pylist()
    waits = np.array([asked_wait(text) if may_succeed_later(text) else math.nan for text in texts])[errors.indices]
    soon = waits <= run.limits.retry_after_limit
    outcome.held_off = int((~np.isnan(waits) & ~soon).sum())
    if outcome.rounds > run.limits.retries or not soon.any():
        return table.slice(0, 0)
    pending = table.filter(among(table["uid"], outcome.errors["uid"].filter(pa.array(soon))))
    pause = max(run.limits.retry_pause * 2 ** (outcome.rounds - 1), float(waits[soon].max()))
    _LOG.info("round %d: %d pairs again in %.0f s", outcome.rounds, len(pending), pause)
    _write_list(run, pending, outcome.rounds)
    time.sleep(pause)
    return pending


def _failures(pool: Folder, shards: range) -> pa.Table:
    """uid and error text of all rows of the shards that have no image."""
    failed = [_ERRORS.empty_table()]
    for shard in shards:
        content = io.BytesIO(pool.read_bytes(f"{shard_name(shard)}.parquet"))
        table = pq.read_table(content, columns=["uid", "status", "error_message"])
        table = table.filter(pc.not_equal(table["status"], "success"))
        messages = pc.fill_null(table["error_message"].cast(pa.string()), "other: no message")
        failed.append(pa.table([table["uid"].cast(pa.string()), messages], schema=_ERRORS))
    return pa.concat_tables(failed)


def among(values: pa.ChunkedArray, others: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each value is one of some others: bool."""
    return pc.is_in(values, value_set=others.combine_chunks())


def without(table: pa.Table, others: pa.Table) -> pa.Table:
    """The rows whose uid is not in another table."""
    return table.filter(pc.invert(among(table["uid"], others["uid"]))) if len(table) else table


def _tail(log: Path) -> str:
    """The last line that workers said."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return "nothing"
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "nothing")
