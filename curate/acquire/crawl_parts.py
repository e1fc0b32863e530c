"""One archive to one file of pairs: what an engine runs, on this machine or on a cluster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from curate.acquire.fetch import FetchLimits
from curate.acquire.html import PageImages
from curate.acquire.pairs import PairWriter
from curate.acquire.warc import archive_pages

_COUNTED = ("images", "without_text", "without_url", "repeated")


@dataclass(frozen=True, slots=True)
class ArchiveTask:
    """A WARC or WAT file to read, and the Parquet file to write, on a disk that the driver sees too."""

    source: str
    part: str
    limits: FetchLimits
    texts: tuple[str, ...]


def read_archive(task: ArchiveTask) -> tuple[Counter[str], Counter[str]]:
    """Writes the pairs of one archive; what was counted, and the pages that failed, by reason."""
    totals: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    with PairWriter(Path(task.part)) as writer:
        for page in archive_pages(task.source, failures, task.limits, task.texts, writer.batch):
            add_page(writer, totals, page)
    add_written(writer, totals)
    return totals, failures


def add_page(writer: PairWriter, totals: Counter[str], page: PageImages) -> None:
    """Writes a page's pairs and counts it."""
    writer.add(page.pairs)
    totals["pages_read"] += 1
    for name in _COUNTED:
        totals[name] += getattr(page, name)


def add_written(writer: PairWriter, totals: Counter[str]) -> None:
    """Counts what a writer wrote, once it is closed."""
    totals["pairs"] += writer.rows
    totals["repeated"] += writer.repeated
