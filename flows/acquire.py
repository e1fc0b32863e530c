"""Acquisition as a Prefect flow: pages to pairs, pairs to a pool; what is done already is not done again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow
from prefect.artifacts import create_table_artifact
from pydantic import TypeAdapter, ValidationError

from curate.acquire.crawl import crawl, report_path
from curate.acquire.download import DownloadLimits, download
from curate.acquire.fetch import FetchLimits
from curate.errors import RequestError
from curate.hashing import facts_hash, file_digest
from curate.storage import Folder
from flows.notify import HOOKS
from flows.stages import alone, dated, staged

PAIRS, POOL = "pairs.parquet", "pool"
REQUEST = "pairs.request.json"
L = TypeVar("L")


@flow(name="acquire", **HOOKS)
def acquire(
    sources: Sequence[str],
    folder: str,
    crawling: dict[str, Any] | None = None,
    downloading: dict[str, Any] | None = None,
    allow_private: bool = False,
    stage_timeout: float | None = None,
) -> dict[str, Any]:
    """Crawl the sources into `folder/pairs.parquet` and download their images into the pool `folder/pool`.

    Args:
        sources: as `curate crawl` takes them: URL lists, pages, WARC files.
        folder: a local folder; `{date}` and `{time}` in it are those that the run was scheduled for, so that
            every night has one of its own.
        crawling, downloading: limits by their names in `FetchLimits` and `DownloadLimits`.
        allow_private: also ask hosts of this machine and private networks.
        stage_timeout: seconds that each try of a stage may take.

    Returns:
        `pairs` and `pool`: where they are; `crawl` and `download`: the two reports.

    Raises:
        RequestError: a limit is unknown, or `folder` was acquired by another request.
    """
    target, stage = Path(dated(folder)), staged(stage_timeout)
    fetch = limits_of(FetchLimits, "crawling", {"allow_private": allow_private, **(crawling or {})})
    load = limits_of(DownloadLimits, "downloading", {"allow_private": allow_private, **(downloading or {})})
    with alone(str(target)):
        crawled = stage("crawl", lambda: crawl_once([dated(source) for source in sources], target, fetch))
        downloaded = stage("download", lambda: asdict(download(target / PAIRS, target / POOL, load)))
    _publish(target, crawled, downloaded)
    return {"pairs": str(target / PAIRS), "pool": str(target / POOL), "crawl": crawled, "download": downloaded}


def limits_of(kind: type[L], field: str, values: dict[str, Any]) -> L:
    """Limits from plain values.

    Raises:
        RequestError: one is unknown or of another type; names it.
    """
    known = kind.__dataclass_fields__  # type: ignore[attr-defined]
    if unknown := sorted(values.keys() - known.keys()):
        raise RequestError(f"{field}.{unknown[0]}: no such limit; there are {', '.join(known)}")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        raise RequestError(f"{field}.{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def crawl_once(sources: Sequence[str], folder: Path, limits: FetchLimits) -> dict[str, Any]:
    """Crawl into `folder/pairs.parquet`, or give the report of the same crawl if it is finished.

    Raises:
        RequestError: another crawl was made there.
    """
    facts = [[source, file_digest(source) if Path(source).is_file() else None] for source in sources]
    request = {"hash": facts_hash([facts, asdict(limits)])}
    here, pairs = Folder(str(folder)), folder / PAIRS
    if here.exists(REQUEST) and here.read_json(REQUEST) != request:
        raise RequestError(f"folder: {folder} was acquired from other sources or with other limits; name a new one")
    if here.exists(REQUEST) and pairs.exists() and report_path(pairs).exists():
        return here.read_json(report_path(pairs).name)
    if not here.exists(REQUEST):
        if pairs.exists() or (folder / POOL).exists():
            raise RequestError(f"folder: {folder} holds pairs or a pool of something else; name a new one")
        here.write_json(REQUEST, request)
    return asdict(crawl(list(sources), pairs, limits))


def _publish(folder: Path, crawled: dict[str, Any], downloaded: dict[str, Any]) -> None:
    """Show what was not had, and why, among the run's artifacts."""
    rows = [
        {"step": "crawl", "what": "pages read", "count": crawled["pages_read"]},
        {"step": "crawl", "what": "pairs", "count": crawled["pairs"]},
        *({"step": "crawl", "what": f"page failed: {why}", "count": n} for why, n in crawled["failures"].items()),
        {"step": "download", "what": "asked", "count": downloaded["asked"]},
        {"step": "download", "what": "downloaded", "count": downloaded["downloaded"]},
        *({"step": "download", "what": f"failed: {why}", "count": n} for why, n in downloaded["failed"].items()),
    ]
    create_table_artifact(rows, key="acquired", description=str(folder))
