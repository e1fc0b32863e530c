"""The parts that a crawl is written in: an archive each, or some addresses. A run that was killed goes on behind them.

They lie in a hidden folder beside the file that the crawl writes, a Parquet file each and, written last, a JSON file of
what was counted.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.acquire.fetch import FetchLimits
from curate.acquire.html import PageImages
from curate.acquire.pairs import PairWriter, write_json
from curate.acquire.warc import archive_pages
from curate.locks import alone

_LOG = logging.getLogger(__name__)
_COUNTED = ("images", "without_text", "without_url", "repeated")
_REQUEST = "request.json"
REPORTED = "reported.json"  # what a run that left its parts here has reported
_UNREAD = "no_archive"  # a later try may read it


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted on the pages of a part, and the pages that failed, by reason."""

    totals: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, page: PageImages) -> None:
        self.totals["pages_read"] += 1
        for name in _COUNTED:
            self.totals[name] += getattr(page, name)

    def write(self, file: Path) -> None:
        write_json(file, {"totals": self.totals, "failures": self.failures})

    @staticmethod
    def read(file: Path) -> Counts:
        told = json.loads(file.read_bytes())
        return Counts(Counter(told["totals"]), Counter(told["failures"]))


@dataclass(frozen=True, slots=True)
class ArchiveTask:
    """A WARC or WAT file to read, and the part to write, on a disk that the driver sees too: what an engine runs."""

    source: str
    part: str
    limits: FetchLimits
    texts: tuple[str, ...]


def read_archive(task: ArchiveTask) -> None:
    """Writes the part of one archive."""
    with writing(Path(task.part)) as (writer, counts):
        for page in archive_pages(task.source, counts.failures, task.limits, task.texts, writer.batch):
            writer.add(page.pairs)
            counts.add(page)


@contextmanager
def writing(part: Path) -> Iterator[tuple[PairWriter, Counts]]:
    """A part to be filled; it is finished behind the block."""
    counts = Counts()
    with PairWriter(part) as writer:
        yield writer, counts
    counts.totals.update(pairs=writer.rows, repeated=writer.repeated)
    counts.write(part.with_suffix(".json"))


def is_finished(part: Path) -> bool:
    """Whether a part need not be written again."""
    return part.exists() and part.with_suffix(".json").exists() and _UNREAD not in sum_of([part]).failures


def sum_of(parts: Iterable[Path]) -> Counts:
    """What was counted on all of some finished parts."""
    counts = Counts()
    for part in parts:
        one = Counts.read(part.with_suffix(".json"))
        counts.totals.update(one.totals)
        counts.failures.update(one.failures)
    return counts


def reported(folder: Path) -> Counts:
    """What an earlier run reported, of which an archive could not be read; nothing if there was none."""
    return Counts.read(folder / REPORTED) if (folder / REPORTED).exists() else Counts()


@contextmanager
def parts_beside(out: Path, request: Mapping[str, Any]) -> Iterator[Path]:
    """The folder of the parts of a crawl into `out`; those of another request are dropped.

    It is removed behind the block, but not if that fails with parts finished, nor if an archive could not be read: then
    the same crawl reads only what is left.
    """
    folder = out.absolute().with_name(f".{out.name}.parts")
    with alone(folder / "lock", f"{out}: another curate crawl is writing it; waiting until it ends", _LOG):
        wanted = json.loads(json.dumps(request))
        if _request(folder) != wanted:
            if written(folder):
                _LOG.warning("%s: what an interrupted crawl of other sources or settings had read is dropped", out)
            for path in folder.iterdir():
                if path.name != "lock":
                    path.unlink()
            write_json(folder / _REQUEST, wanted)
        whole = False
        try:
            yield folder
            whole = all(map(is_finished, written(folder)))
        finally:
            if whole or not any(map(is_finished, written(folder))):
                shutil.rmtree(folder, ignore_errors=True)


def written(folder: Path) -> list[Path]:
    """The parts that were written to their end, in the order of their names."""
    return sorted(path for path in folder.glob("*.parquet") if path.with_suffix(".json").exists())


def _request(folder: Path) -> Any:
    try:
        return json.loads((folder / _REQUEST).read_bytes())
    except (OSError, ValueError):
        return None
