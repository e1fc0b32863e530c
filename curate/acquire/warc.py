"""Reads the HTML pages of WARC files, and what WAT files say of pages."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from curate.acquire.fetch import ASKING, FetchLimits
from curate.acquire.fetch_optout import product
from curate.acquire.html import PageImages
from curate.acquire.html_pairs import add_page, add_wat
from curate.acquire.warc_stream import open_archive
from curate.acquire.warc_wat import DECODED_SINCE, read_wat

if TYPE_CHECKING:
    from fastwarc.warc import WarcRecord

    from curate.acquire.pairs_batch import PairBatch

ENDINGS = tuple(kind + packing for kind in (".warc", ".wat") for packing in ("", ".gz", ".zst", ".lz4"))
_LOG = logging.getLogger(__name__)


def is_archive(source: str) -> bool:
    """Whether a source is named like a WARC or WAT file."""
    return source.split("?")[0].lower().endswith(ENDINGS)


def archive_pages(
    source: str,
    failures: Counter[str],
    limits: FetchLimits,
    texts: Collection[str],
    batch: PairBatch,
) -> Iterator[PageImages]:
    """The HTML pages of a WARC or WAT file in its order; one that was cut off or is broken gives what it can.

    Their pairs go into the batch before a page is given, and not with the page.

    What cannot be used is added to `failures` by reason: not_html, http_4xx, http_5xx, protocol, too_large, the
    refusals of `fetch_optout`, broken_record (a response that was cut off), broken_warc (a place in the file that
    could not be read; it is gone on with at the next record), revisit (the page is in another file), conversion (a text
    made of a page), no_archive (the file cannot be opened). Raises
    RequestError for a store that is not known.
    """
    from fastwarc.warc import WarcRecordType

    from curate.acquire.warc_records import read_records

    agent = product(limits.user_agent)
    try:
        with open_archive(source, limits) as stream:
            for record, content in read_records(source, stream, failures, limits.max_bytes):
                page: PageImages | str
                if isinstance(content, str):
                    page = content
                elif record.record_type == WarcRecordType.response:
                    page = _warc_page(record, content, texts, agent, batch)
                else:
                    page = _wat_page(record, content, texts, agent, batch)
                if isinstance(page, PageImages) and page.refused is None:
                    yield page
                elif page:
                    failures[page if isinstance(page, str) else str(page.refused)] += 1
    except OSError as error:
        _LOG.warning("%s: cannot be read (%s)", source, error)
        failures["no_archive"] += 1


def _warc_page(record: WarcRecord, content: bytes, texts: Collection[str], agent: str, batch: PairBatch) -> PageImages:
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")
    asking = [(name, value) for name in ASKING for value in record.http_headers.get_multiple(name)]
    return add_page(batch, content, url, record.http_charset, headers=asking, texts=texts, agent=agent)


def _wat_page(
    record: WarcRecord, content: bytes, texts: Collection[str], agent: str, batch: PairBatch
) -> PageImages | str:
    decoded = (record.headers.get("WARC-Date") or DECODED_SINCE) >= DECODED_SINCE
    wat = read_wat(content, decoded=decoded, apart="alt" in texts and "title" not in texts)
    if wat.reason is not None:
        return wat.reason
    return add_wat(batch, wat, texts=texts, agent=agent)
