"""How flows run their stages: as Prefect tasks with retries and limits, in folders that a schedule can name by date."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import get_current_settings
from prefect.states import State

from curate import locks, metrics
from curate.curation import Stage
from curate.errors import RequestError
from curate.storage import Folder

RETRY_SECONDS = (5.0, 30.0)
T = TypeVar("T")
log = logging.getLogger("curate.flows")


def run_as_task(name: str, work: Callable[[], T], timeout: float | None = None) -> T:
    """Run a stage as a task with retries; each try may take `timeout` seconds.

    Stages keep what they finished on disk, so a retry goes on from there and Prefect has nothing to cache. The task has
    the tag `curate-` and the name's first word, which a concurrency limit of Prefect can name.
    """
    delays: list[float] = [*RETRY_SECONDS]
    as_task = task(
        name=name,
        tags={f"curate-{name.split()[0]}"},
        retries=len(delays),
        retry_delay_seconds=delays,
        retry_condition_fn=_may_pass,
        timeout_seconds=timeout,
        cache_policy=NO_CACHE,
        persist_result=False,
    )

    def timed() -> T:
        with metrics.stage(name):
            return work()

    return as_task(timed)()


def _may_pass(_task: Any, _run: Any, state: State[Any]) -> bool:
    """A wrong request is wrong the next time too."""
    return not isinstance(state.result(raise_on_failure=False), RequestError)


def staged(timeout: float | None) -> Stage:
    """`run_as_task` with a limit on the time of each try."""

    def stage(name: str, work: Callable[[], T]) -> T:
        return run_as_task(name, work, timeout)

    return stage


def dated(text: str) -> str:
    """The text with `{date}` and `{time}` as those for which the run was scheduled, in UTC.

    A run that is started again has the same ones, so it goes on in the folder where it was.

    >>> dated("data/pool")
    'data/pool'
    """
    if "{date}" not in text and "{time}" not in text:
        return text
    at: datetime = runtime.flow_run.scheduled_start_time or datetime.now(UTC)
    at = at.astimezone(UTC)
    return text.replace("{date}", at.strftime("%Y-%m-%d")).replace("{time}", at.strftime("%H%M%S"))


@contextlib.contextmanager
def alone(folder: str) -> Iterator[None]:
    """Wait until no other run on this machine works on a local folder, and keep others waiting.

    A run may have outlived the process that served it when it is started again. The lock ends with its process.
    """
    target = Folder(folder)
    if not target.is_local:
        yield
        return
    name = hashlib.sha256(str(Path(target.root).resolve()).encode()).hexdigest()[:24]
    lock = get_current_settings().home / "curate-locks" / name
    with locks.alone(lock, f"another run works on {folder}; waiting for it", log):
        yield
