"""From pages to `pairs.parquet`: every image with a text, in page order, and a report on the rest."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from curate import metrics
from curate.acquire.crawl_parts import ArchiveTask, add_page, add_written, read_archive
from curate.acquire.fetch import Fetcher, FetchFailure, FetchLimits, Page
from curate.acquire.fetch_optout import product
from curate.acquire.html import ALL_TEXTS, TEXTS, PageImages, absolute_url, read_page
from curate.acquire.pairs import PairWriter, merge_pairs, write_json
from curate.acquire.warc import archive_pages, is_archive
from curate.engines import open_engine
from curate.errors import RequestError, WorkError

if TYPE_CHECKING:
    from curate.acquire.pairs_batch import PairBatch

_MAX_LINE = 8192  # characters of a line in a URL list
DISTINCT = ("uid", "url")


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
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        if together:
            totals, failures, parts = _with_engine(sources, Path(folder), limits, texts, engine, workers)
        else:
            totals, failures, parts = _here(sources, Path(folder) / "0", limits, texts)
        if not totals["pages_read"]:
            _nothing(sources, failures)
        left_out = 0
        if len(parts) == 1 and distinct is None:
            parts[0].replace(out)
        else:
            totals["pairs"], left_out = merge_pairs(parts, out, distinct)
    names = ("pages_repeated", "pages_read", "images", "pairs", "without_text", "without_url", "repeated")
    report = CrawlReport(
        pages=totals["pages_read"] + failures.total(),
        **{name: totals[name] for name in names},
        not_distinct=left_out,
        failures=dict(sorted(failures.items(), key=lambda item: (-item[1], item[0]))),
        seconds=round(time.monotonic() - started, 3),
    )
    write_json(report_path(out), asdict(report))
    metrics.crawled(asdict(report))
    return report


def _here(
    sources: Sequence[str], part: Path, limits: FetchLimits, texts: Sequence[str]
) -> tuple[Counter[str], Counter[str], list[Path]]:
    totals: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    with PairWriter(part) as writer:
        for page in _pages(sources, limits, totals, failures, texts, writer.batch):
            add_page(writer, totals, page)
    add_written(writer, totals)
    return totals, failures, [part]


def _with_engine(
    sources: Sequence[str], folder: Path, limits: FetchLimits, texts: Sequence[str], engine: str, workers: int
) -> tuple[Counter[str], Counter[str], list[Path]]:
    totals: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    parts = [(folder / str(number)).absolute() for number in range(len(sources))]
    tasks = [
        ArchiveTask(_whole(source), str(part), limits, tuple(texts))
        for source, part in zip(sources, parts, strict=True)
    ]
    running = open_engine(engine, workers if engine == "local" or workers > 1 else None)
    try:
        for counted, failed in running.map(read_archive, tasks):
            totals.update(counted)
            failures.update(failed)
    finally:
        running.close()
    return totals, failures, parts


def _whole(source: str) -> str:
    return source if "://" in source else str(Path(source).absolute())


def _nothing(sources: Sequence[str], failures: Counter[str]) -> None:
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
        stored = _is_address(source) or ("://" in source and is_archive(source))
        if not stored and not Path(source).is_file():
            raise RequestError(f"{source}: is neither a file, an http(s) address nor an archive in a store")


def _is_address(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _pages(
    sources: Sequence[str],
    limits: FetchLimits,
    totals: Counter[str],
    failures: Counter[str],
    texts: Sequence[str],
    batch: PairBatch,
) -> Iterator[PageImages]:
    """The pages of the sources in order; neighbouring addresses are fetched together."""
    for archives, group in itertools.groupby(sources, key=is_archive):
        if archives:
            for source in group:
                yield from archive_pages(source, failures, limits, texts, batch)
        else:
            yield from _fetched(_addresses(group, totals), limits, failures, texts)


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


def _fetched(
    urls: Iterable[str], limits: FetchLimits, failures: Counter[str], texts: Sequence[str]
) -> Iterator[PageImages]:
    """Fetches pages in many threads and gives them in the order of the addresses."""
    agent = product(limits.user_agent)

    def read(future: Future[Page]) -> Iterator[PageImages]:
        try:
            page = future.result()
        except FetchFailure as failed:
            failures[failed.reason] += 1
            return
        found = read_page(page.content, page.url, page.charset, headers=page.headers, texts=texts, agent=agent)
        if found.refused is None:
            yield found
        else:
            failures[found.refused] += 1

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
                    yield from read(waiting.popleft())
            while waiting:
                yield from read(waiting.popleft())
        finally:
            for future in waiting:  # on an error or an interrupt, do not fetch the rest first
                future.cancel()


def _in_words(failures: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in failures.items()) or "the sources name none"
