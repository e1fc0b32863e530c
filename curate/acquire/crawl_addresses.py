"""Pages named by their addresses: listed once each, fetched together, and given in their order."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from curate.acquire.crawl_parts import is_finished, writing
from curate.acquire.fetch import Fetcher, FetchLimits, Page
from curate.acquire.fetch_hosts import FetchFailure
from curate.acquire.fetch_optout import product
from curate.acquire.html import PageImages, absolute_url, read_page

PAGES = 1000  # addresses to a part
_MAX_LINE = 8192  # characters of a line in a URL list


def is_address(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def read_addresses(
    sources: Sequence[str], folder: Path, name: str, limits: FetchLimits, texts: Sequence[str]
) -> tuple[int, int]:
    """Writes the parts of some URL lists and addresses, but for the first that are finished.

    How many addresses were listed more than once, and how many parts were finished before.
    """
    totals: Counter[str] = Counter()
    urls = _addresses(sources, totals)
    before = 0
    while is_finished(folder / f"{name}.{before:06d}.parquet"):
        for _ in itertools.islice(urls, PAGES):
            pass
        before += 1
    with closing(_fetched(urls, limits, texts)) as outcomes:
        for number in itertools.count(before):
            first = next(outcomes, None)
            if first is None:
                return totals["repeated"], before
            with writing(folder / f"{name}.{number:06d}.parquet") as (writer, counts):
                for page in itertools.chain([first], itertools.islice(outcomes, PAGES - 1)):
                    if isinstance(page, str):
                        counts.failures[page] += 1
                    else:
                        writer.add(page.pairs)
                        counts.add(page)
    raise AssertionError("unreachable")


def _addresses(sources: Iterable[str], totals: Counter[str]) -> Iterator[str]:
    """Every address once, in order."""
    seen: set[str] = set()
    for source in sources:
        for url in [source] if is_address(source) else _listed(Path(source)):
            if url in seen:
                totals["repeated"] += 1
            else:
                seen.add(url)
                yield url


def _listed(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            url = line.strip()
            if url and not url.startswith("#"):
                yield url[:_MAX_LINE]


def _fetched(urls: Iterable[str], limits: FetchLimits, texts: Sequence[str]) -> Generator[PageImages | str]:
    """Fetches pages in many threads and gives them, or the reasons why not, in the order of the addresses."""
    agent = product(limits.user_agent)

    def read(future: Future[Page]) -> PageImages | str:
        try:
            page = future.result()
        except FetchFailure as failed:
            return failed.reason
        found = read_page(page.content, page.url, page.charset, headers=page.headers, texts=texts, agent=agent)
        return found.refused or found

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
                    yield read(waiting.popleft())
            while waiting:
                yield read(waiting.popleft())
        finally:
            for future in waiting:  # on an error or an interrupt, do not fetch the rest first
                future.cancel()
