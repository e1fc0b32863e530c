"""From pages to `pairs.parquet`: every image with a text, in page order, and a report on the rest."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curate import metrics
from curate.acquire.crawl_addresses import is_address, read_addresses
from curate.acquire.crawl_parts import (
    REPORTED,
    ArchiveTask,
    is_finished,
    parts_beside,
    read_archive,
    reported,
    sum_of,
    written,
)
from curate.acquire.fetch import FetchLimits
from curate.acquire.html import ALL_TEXTS, TEXTS
from curate.acquire.pairs import merge_pairs, write_json
from curate.acquire.warc import is_archive
from curate.errors import RequestError, WorkError

DISTINCT = ("uid", "url")
_PARTS = 1  # the version of the parts


@dataclass(frozen=True, slots=True)
class CrawlReport:
    """What a crawl found. `pages = pages_read + sum(failures)`.

    An image with two texts gives two pairs, so `pairs` can be more than the images that gave any.
    """

    pages: int  # asked for, each address once; archives: responses, and places that could not be read
    pages_read: int
    pages_repeated: int  # addresses that were listed more than once
    images: int  # img elements on the pages read
    pairs: int  # rows of pairs.parquet
    without_text: int  # images without any of the texts asked for
    without_url: int  # images without a usable address
    repeated: int  # pairs shown again on the same page
    not_distinct: int = 0  # further pairs of an address or uid that came before, on any page
    failures: Mapping[str, int] = field(default_factory=dict)  # reason -> pages, most frequent first
    parts_before: int = 0  # parts of the work that a run before this one, which was interrupted, had finished
    seconds: float = 0.0


def crawl(
    sources: Sequence[str],
    out: Path,
    limits: FetchLimits | None = None,
    *,
    texts: Sequence[str] = TEXTS,
    distinct: str | None = None,
    engine: str = "local",
    workers: int = 1,
) -> CrawlReport:
    """Reads the pages of all sources and writes the pairs to `out`, and the report to `out`'s .report.json.

    A source is a WARC or WAT file (a path, an http(s) address or a URL of an fsspec store that ends in .warc,
    .warc.gz, .wat, .wat.gz), the path of a text file with one page address a line (blank lines and lines that start
    with # are skipped), or a page's address. The order of rows is that of the sources, their pages and the images on
    them, whatever the engine and the speed of the network. `out` appears when it is complete. Raises RequestError for
    a wrong source, WorkError if not one page could be read.

    Args:
        texts: where captions are taken from, of html.ALL_TEXTS.
        distinct: keep only the first row of every `url` or `uid` over all pages.
        engine: `local` or `spark`; Spark, and more workers than one, read a file a task and take archives only.
    """
    started = time.monotonic()
    limits = limits or FetchLimits()
    _check_request(sources, out, limits, texts, distinct)
    together = engine != "local" or (workers > 1 and len(sources) > 1)
    if together and not all(map(is_archive, sources)):
        raise RequestError("SOURCE: --engine spark and --workers read WARC and WAT files; one process fetches pages")
    out.parent.mkdir(parents=True, exist_ok=True)
    with parts_beside(out, _request(sources, limits, texts)) as folder:
        told = reported(folder)
        repeated, before = _read(sources, folder, limits, texts, engine if together else None, workers)
        parts = written(folder)
        counts = sum_of(parts)
        totals, failures = counts.totals, counts.failures
        left_out = 0
        if totals["pages_read"] and len(parts) == 1 and distinct is None:
            parts[0].replace(out)
        elif totals["pages_read"]:
            totals["pairs"], left_out = merge_pairs(parts, out, distinct)
        counts.write(folder / REPORTED)
    if not totals["pages_read"]:
        _nothing(sources, failures)
    names = ("pages_read", "images", "pairs", "without_text", "without_url", "repeated")
    report = CrawlReport(
        pages=totals["pages_read"] + failures.total(),
        pages_repeated=repeated,
        **{name: totals[name] for name in names},
        not_distinct=left_out,
        failures=dict(sorted(failures.items(), key=lambda item: (-item[1], item[0]))),
        parts_before=before,
        seconds=round(time.monotonic() - started, 3),
    )
    write_json(report_path(out), asdict(report))
    new = {"pages_read": report.pages_read - told.totals["pages_read"], "failures": failures - told.failures}
    metrics.crawled({**new, "pairs": max(0, report.pairs - told.totals["pairs"])})
    return report


def _request(sources: Sequence[str], limits: FetchLimits, texts: Sequence[str]) -> dict[str, Any]:
    """What the parts of a crawl depend on: not how fast and how patiently pages are asked for."""
    files = [Path(source) for source in sources]
    stats = [path.stat() if path.is_file() else None for path in files]
    facts = [
        [_whole(name), stat and stat.st_size, stat and stat.st_mtime_ns]
        for name, stat in zip(sources, stats, strict=True)
    ]
    kept = {name: getattr(limits, name) for name in ("allow_private", "user_agent", "max_bytes", "max_redirects")}
    return {"parts": _PARTS, "sources": facts, "texts": list(texts), "limits": kept}


def _read(
    sources: Sequence[str], folder: Path, limits: FetchLimits, texts: Sequence[str], engine: str | None, workers: int
) -> tuple[int, int]:
    """Writes the parts that are not finished; how many addresses were repeated, and how many parts were finished."""
    repeated = before = 0
    tasks = []
    for archives, numbered in itertools.groupby(enumerate(sources), key=lambda one: is_archive(one[1])):
        group = list(numbered)
        if not archives:
            name = f"{group[0][0]:06d}"
            more = read_addresses([source for _, source in group], folder, name, limits, texts)
            repeated, before = repeated + more[0], before + more[1]
            continue
        for number, source in group:
            part = folder / f"{number:06d}.parquet"
            if is_finished(part):
                before += 1
            else:
                tasks.append(ArchiveTask(_whole(source), str(part), limits, tuple(texts)))
    if engine is None:
        for task in tasks:
            read_archive(task)
    elif tasks:
        from curate.engines import open_engine  # half a second, and mostly not needed

        running = open_engine(engine, workers if engine == "local" or workers > 1 else None)
        try:
            for _ in running.map(read_archive, tasks):
                pass
        finally:
            running.close()
    return repeated, before


def _whole(source: str) -> str:
    return source if "://" in source else str(Path(source).absolute())


def _nothing(sources: Sequence[str], failures: Mapping[str, int]) -> None:
    if set(failures) <= {"broken_warc"} and all(map(is_archive, sources)):
        raise RequestError(f"{', '.join(sources)[:500]}: holds no WARC response and no WAT record")
    raise WorkError(f"no page could be read: {_in_words(failures)}")


def report_path(out: Path) -> Path:
    """Where the report of the crawl into `out` is: pairs.parquet -> pairs.report.json."""
    return out.with_suffix(".report.json")


def _check_request(
    sources: Sequence[str], out: Path, limits: FetchLimits, texts: Sequence[str], distinct: str | None
) -> None:
    if not sources:
        raise RequestError("SOURCE: name at least one URL list, page address, WARC or WAT file")
    if limits.threads < 1 or limits.timeout <= 0 or limits.max_bytes < 1:
        raise RequestError("threads, timeout and max_bytes must be above zero")
    wrong = [text for text in texts if text not in ALL_TEXTS]
    if wrong or not texts:
        raise RequestError(f"--texts: {', '.join(wrong) or 'none'}; there are {', '.join(ALL_TEXTS)}")
    if distinct not in (None, *DISTINCT):
        raise RequestError(f"--distinct: {distinct}; there are {', '.join(DISTINCT)}")
    if out.is_dir():
        raise RequestError(f"{out}: is a folder; name the Parquet file to write")
    for source in sources:
        stored = is_address(source) or ("://" in source and is_archive(source))
        if not stored and not Path(source).is_file():
            raise RequestError(f"{source}: is neither a file, an http(s) address nor an archive in a store")


def _in_words(failures: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in failures.items()) or "the sources name none"
