"""Every answer of a backend, once: lines appended to a file for each shard, safe as soon as they are written.

A journal lies in the pool's cache, so whatever asks the same backend the same of the same samples finds the answers:
a killed run that is started again, or another arm of an experiment. The last line of a killed run may be torn; it is
not read, and its request is asked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from curate import locks
from curate.errors import WorkError
from curate.storage import Folder

SYNC_SHARE = 0.1
"""Of the time at most goes into waiting for the disk: where it is slow, answers are made safe some at a time."""
SPOOL = "CURATE_SPOOL"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Said:
    """What is known of a request: the caption, or why there is none."""

    caption: str | None
    error: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    final: bool = True


class Journal:
    """The answers of one shard. `known` has the latest of each request, by its id."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.known, whole = read_journal(path)
        self._file = path.open("ab", buffering=0)
        if self._file.tell() != whole:
            log.warning("%s: a torn line was dropped; its request is asked again", path)
            self._file.truncate(whole)
        self._synced, self._cost = 0.0, 0.0
        self._dirty = False

    def add(self, id: str, said: Said) -> None:
        """Append an answer: it outlives this process when this returns, and the machine a moment later at most.

        Raises:
            WorkError: it cannot be written.
        """
        line = {"id": id, "caption": said.caption, "error": said.error, "in": said.tokens_in, "out": said.tokens_out,
                "final": said.final}  # fmt: skip
        try:
            data = memoryview(orjson.dumps(line) + b"\n")
            while data:
                data = data[self._file.write(data) :]
            self._dirty = True
            if time.monotonic() - self._synced >= self._cost / SYNC_SHARE:
                self.sync()
        except OSError as error:
            raise WorkError(f"{self._file.name}: {error.strerror}: the answers cannot be kept") from error
        self.known[id] = said

    def sync(self) -> None:
        """Make what was appended safe against a loss of power too."""
        if self._dirty:
            began = time.monotonic()
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()
            self._cost, self._dirty = self._synced - began, False

    def close(self) -> None:
        if not self._file.closed:
            self.sync()
            self._file.close()


def read_journal(path: Path) -> tuple[dict[str, Said], int]:
    """The latest answer to each request, and how many bytes of the file are whole lines. A damaged line is left out."""
    known: dict[str, Said] = {}
    whole = damaged = 0
    if not path.exists():
        return known, 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            if (found := _parsed(line)) is None:
                damaged += 1
            elif found[0] not in known or found[1].final or not known[found[0]].final:
                known[found[0]] = found[1]
    if damaged:
        log.warning("%s: %d damaged lines; what they answered is asked again", path, damaged)
    return known, whole


def _parsed(line: bytes) -> tuple[str, Said] | None:
    try:
        raw: dict[str, Any] = orjson.loads(line)
        said = Said(raw["caption"], raw["error"], int(raw["in"]), int(raw["out"]), bool(raw["final"]))
        good = isinstance(raw["id"], str) and isinstance(said.caption or "", str) and isinstance(said.error or "", str)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
    return (raw["id"], said) if good and (said.caption is None) != (said.error is None) else None


@dataclass(frozen=True)
class Journals:
    """The journals of a pool's shards for one backend. Those of a remote cache are written here and copied there."""

    folder: Folder

    def open(self, shard: str) -> Journal:
        """The journal of a shard, to read and append."""
        path = self._here(shard)
        if not self.folder.is_local and self.folder.exists(self._name(shard)):
            beside = self.folder.read_bytes(self._name(shard))
            own = path.read_bytes() if path.exists() else b""
            if not beside.startswith(own):  # what an interrupted run did not copy comes last
                beside += own
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(beside)
        return Journal(path)

    def done(self, shard: str, journal: Journal) -> None:
        """Close a journal, and copy it where it belongs."""
        journal.close()
        if not self.folder.is_local:
            self.folder.fs.put_file(str(self._here(shard)), self.folder.path(self._name(shard)))

    def known(self, shard: str) -> dict[str, Said]:
        """The answers of a shard, when no run is writing to its journal."""
        if self.folder.is_local:
            return read_journal(self._here(shard))[0]
        journal = self.open(shard)
        journal.close()
        return journal.known

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other run on this machine asks the same backend about this pool, and keep others waiting."""
        lock = self._here(".lock").with_name(".lock")
        with locks.alone(lock, f"another run writes captions into {self.folder.url}; waiting for it", log):
            yield

    def _name(self, shard: str) -> str:
        return f"{shard.removesuffix('.tar')}.jsonl"

    def _here(self, shard: str) -> Path:
        if self.folder.is_local:
            return Path(self.folder.path(self._name(shard)))
        spool = os.environ.get(SPOOL) or Path(tempfile.gettempdir()) / f"curate-spool-{os.getuid()}"
        return Path(spool) / hashlib.sha256(self.folder.url.encode()).hexdigest()[:24] / self._name(shard)
