"""Shows a training's progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)
Progress = Callable[[dict[str, Any]], None]
SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def show_progress(steps: int, samples_seen: int) -> Iterator[Progress]:
    """A function to call with each metrics record; it draws a bar or logs a line."""
    if not sys.stderr.isatty():
        yield _LogLines(steps)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=samples_seen)

        def update(record: dict[str, Any]) -> None:
            text = f"loss {record['loss']:.3f}  {record['samples_per_second']:.0f}/s{_mfu(record)}"
            bar.update(task, completed=record["samples_seen"], description=text)

        yield update


class _LogLines:
    def __init__(self, steps: int):
        self.steps, self.last = steps, 0.0

    def __call__(self, record: dict[str, Any]) -> None:
        if record["step"] < self.steps and record["seconds"] - self.last < SECONDS_BETWEEN_LINES:
            return
        self.last = record["seconds"]
        log.info(
            "step %d of %d: loss %.3f, %.0f samples/s%s, %.0f %% waiting for data",
            record["step"],
            self.steps,
            record["loss"],
            record["samples_per_second"],
            _mfu(record),
            100 * record["data_wait"],
        )


def _mfu(record: dict[str, Any]) -> str:
    return "" if record["mfu"] is None else f", {100 * record['mfu']:.0f} % MFU"
