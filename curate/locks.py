"""A lock between the processes of this machine, which ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone(file: Path, busy: str, log: logging.Logger) -> Iterator[None]:
    """Hold the lock of a file, which is made if need be; where another process has it, warn `busy` and wait."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            log.warning(busy)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
