"""Progress of long work: bars on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from curate.curation import Progress as Report

EVERY_SECONDS = 10.0
COUNTED = ("captions",)
"""Stages whose name says what is counted; those of the others are shards."""
log = logging.getLogger("curate")


@contextlib.contextmanager
def show_progress() -> Iterator[Report]:
    """Yield a function to call with (stage, done, total); a total of 0 is one not known."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bars:
        tasks = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage)
            bars.update(tasks[stage], completed=done, total=total or None)

        yield report


def _lines() -> Report:
    said: dict[str, float] = {}

    def report(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - said.get(stage, 0) >= EVERY_SECONDS:
            said[stage] = now
            unit = "" if stage in COUNTED else " shards"
            log.info("%s: %d%s%s", stage, done, f" of {total}" if total else "", unit)

    return report
