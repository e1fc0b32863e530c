"""From pages to `pairs.parquet`: every image with a text, in page order, and a report on the rest."""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from curate.acquire.fetch import Fetcher, FetchFailure, FetchLimits, Page
from curate.acquire.html import PageImages, absolute_url, read_page
from curate.acquire.pairs import PairWriter, write_json
from curate.acquire.warc import warc_pages
from curate.errors import RequestError, WorkError

_WARC_ENDINGS = (".warc", ".warc.gz")
_MAX_LINE = 8192  # characters of a line in a URL list


@dataclass(frozen=True, slots=True)
class CrawlReport:
    """What a crawl found. `pages = pages_read + sum(failures)`.

    An image with two texts gives two pairs, so `pairs` can be more than the images that gave any.
    """

    pages: int  # asked for, each address once; WARC: response records
    pages_read: int
    pages_repeated: int  # addresses that were listed more than once
    images: int  # img elements on the pages read
    pairs: int  # rows of pairs.parquet
    without_text: int  # images with neither alt text nor figcaption
    without_url: int  # images without a usable address
    repeated: int  # pairs shown again on the same page
    failures: Mapping[str, int] = field(default_factory=dict)  # reason -> pages, most frequent first
    seconds: float = 0.0


def crawl(sources: Sequence[str], out: Path, limits: FetchLimits | None = None) -> CrawlReport:
    """Reads the pages of all sources and writes the pairs to `out`, and the report to `out`'s .report.json.

    A source is the path of a WARC file (.warc, .warc.gz), the path of a text file with one page address a
    line (blank lines and lines that start with # are skipped), or a page's address. The order of rows is that
    of the sources, their pages and the images on them, whatever the speed of the network. `out` appears when
    it is complete. Raises RequestError for a wrong source, WorkError if not one page could be read.
    """
    started = time.monotonic()
    limits = limits or FetchLimits()
    _check_request(sources, out, limits)
    totals: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    with PairWriter(out) as writer:
        for page in _pages(sources, limits, totals, failures):
            writer.add(page.pairs)
            totals["pages_read"] += 1
            totals["pairs"] += len(page.pairs)
            for name in ("images", "without_text", "without_url", "repeated"):
                totals[name] += getattr(page, name)
        if not totals["pages_read"]:
            raise WorkError(f"no page could be read: {_in_words(failures)}")
    names = ("pages_repeated", "pages_read", "images", "pairs", "without_text", "without_url", "repeated")
    report = CrawlReport(
        pages=totals["pages_read"] + failures.total(),
        **{name: totals[name] for name in names},
        failures=dict(failures.most_common()),
        seconds=round(time.monotonic() - started, 3),
    )
    write_json(report_path(out), asdict(report))
    return report


def report_path(out: Path) -> Path:
    """Where the report of the crawl into `out` is: pairs.parquet -> pairs.report.json."""
    return out.with_suffix(".report.json")


def _check_request(sources: Sequence[str], out: Path, limits: FetchLimits) -> None:
    if not sources:
        raise RequestError("SOURCE: name at least one URL list, page address or WARC file")
    if limits.threads < 1 or limits.timeout <= 0 or limits.max_bytes < 1:
        raise RequestError("threads, timeout and max_bytes must be above zero")
    if out.is_dir():
        raise RequestError(f"{out}: is a folder; name the Parquet file to write")
    for source in sources:
        if not _is_address(source) and not Path(source).is_file():
            raise RequestError(f"{source}: is neither a file nor an http(s) address")


def _is_address(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _pages(
    sources: Sequence[str], limits: FetchLimits, totals: Counter[str], failures: Counter[str]
) -> Iterator[PageImages]:
    """The pages of the sources in order; neighbouring addresses are fetched together."""
    for is_warc, group in itertools.groupby(sources, key=lambda source: source.endswith(_WARC_ENDINGS)):
        if is_warc:
            for source in group:
                for page in warc_pages(Path(source), failures, max_bytes=limits.max_bytes):
                    yield read_page(page.content, page.url, page.charset)
        else:
            yield from _fetched(_addresses(group, totals), limits, failures)


def _addresses(sources: Iterable[str], totals: Counter[str]) -> Iterator[str]:
    """Every address once, in order."""
    seen: set[str] = set()
    for source in sources:
        for url in [source] if _is_address(source) else _listed(Path(source)):
            if url in seen:
                totals["pages_repeated"] += 1
            else:
                seen.add(url)
                yield url


def _listed(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            url = line.strip()
            if url and not url.startswith("#"):
                yield url[:_MAX_LINE]


def _fetched(urls: Iterable[str], limits: FetchLimits, failures: Counter[str]) -> Iterator[PageImages]:
    """Fetches pages in many threads and gives them in the order of the addresses."""

    def fetch(url: str) -> Page:
        if absolute_url(url, url) is None:
            raise FetchFailure("bad_url")
        return fetcher.fetch(url)

    waiting: deque[Future[Page]] = deque()
    window = limits.threads * 4  # pages in flight or waiting for their turn: bounds the memory
    with Fetcher(limits) as fetcher, ThreadPoolExecutor(limits.threads, "crawl") as threads:
        try:
            for url in urls:
                waiting.append(threads.submit(fetch, url))
                if len(waiting) >= window:
                    yield from _read(waiting.popleft(), failures)
            while waiting:
                yield from _read(waiting.popleft(), failures)
        finally:
            for future in waiting:  # on an error or an interrupt, do not fetch the rest first
                future.cancel()


def _read(future: Future[Page], failures: Counter[str]) -> Iterator[PageImages]:
    try:
        page = future.result()
    except FetchFailure as failed:
        failures[failed.reason] += 1
        return
    yield read_page(page.content, page.url, page.charset)


def _in_words(failures: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in failures.items()) or "the sources name none"
