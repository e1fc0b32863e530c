"""Reads the HTML pages of WARC files, and what WAT files say of pages."""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

from curate.acquire.fetch import ASKING, FetchLimits
from curate.acquire.fetch_optout import product
from curate.acquire.html import TEXTS, PageImages, pairs_of, read_page
from curate.acquire.html_pairs import add_page
from curate.acquire.pairs_batch import PairBatch
from curate.acquire.warc_stream import open_archive
from curate.acquire.warc_wat import read_wat

ENDINGS = tuple(kind + packing for kind in (".warc", ".wat") for packing in ("", ".gz", ".zst", ".lz4"))
_LOG = logging.getLogger(__name__)
_CHUNK = 1 << 20
_GZIP, _WARC = b"\x1f\x8b\x08", b"WARC/1."
_MAX_BREAKS = 1000  # per file


def is_archive(source: str) -> bool:
    """Whether a source is named like a WARC or WAT file."""
    return source.split("?")[0].lower().endswith(ENDINGS)


def archive_pages(
    source: str,
    failures: Counter[str],
    limits: FetchLimits | None = None,
    texts: Collection[str] = TEXTS,
    batch: PairBatch | None = None,
) -> Iterator[PageImages]:
    """The HTML pages of a WARC or WAT file in its order; one that was cut off or is broken gives what it can.

    With a `batch`, the pairs of a WARC's pages go there before a page is given, and not with the page.

    What cannot be used is added to `failures` by reason: not_html, http_4xx, http_5xx, protocol, too_large, the
    refusals of `fetch_optout`, broken_record (a response that was cut off), broken_warc (a place in the file that
    could not be read; it is gone on with at the next record), revisit (the page is in another file), conversion (a text
    made of a page), no_archive (the file cannot be opened). Raises
    RequestError for a store that is not known.
    """
    from fastwarc.warc import WarcRecordType

    limits = limits or FetchLimits()
    agent = product(limits.user_agent)
    try:
        with open_archive(source, limits) as stream:
            for record in _records(source, stream, failures):
                page: PageImages | str
                if record.record_type == WarcRecordType.response:
                    page = _warc_page(record, limits, texts, agent, batch)
                elif record.record_type in (WarcRecordType.revisit, WarcRecordType.conversion):
                    page = "revisit" if record.record_type == WarcRecordType.revisit else "conversion"
                else:
                    page = _wat_page(record, texts, agent)
                if isinstance(page, PageImages) and page.refused is None:
                    yield page
                elif page:
                    failures[page if isinstance(page, str) else str(page.refused)] += 1
    except OSError as error:
        _LOG.warning("%s: cannot be read (%s)", source, error)
        failures["no_archive"] += 1


def _records(source: str, stream: BinaryIO, failures: Counter[str]) -> Iterator[Any]:
    """The response and metadata records of a file, past places that are broken."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    wanted = WarcRecordType.response | WarcRecordType.metadata | WarcRecordType.revisit | WarcRecordType.conversion
    begin = _GZIP if stream.read(3) == _GZIP else _WARC
    stream.seek(0)
    place, started = 0, 0
    for _ in range(_MAX_BREAKS):
        try:
            for record in ArchiveIterator(stream, record_types=wanted, auto_decode="all"):
                place = record.stream_pos
                yield record
            if begin != _GZIP or _ends_well(stream, place):
                return
            raise EOFError("the file was cut off")
        except (OSError, ValueError, EOFError) as broken:
            if started == 0 or place > started:  # not for each try to find the next record
                failures["broken_warc"] += 1
                _LOG.warning("%s: broken after byte %d (%s)", source, place, broken)
            following = _next_record(stream, begin, max(place, started) + 1)
            if following is None:
                return
            started = following
            stream.seek(following)


def _next_record(stream: BinaryIO, begin: bytes, place: int) -> int | None:
    """Where the next record may begin, from a place on; None at the end of the file."""
    stream.seek(place)
    data = b""
    while chunk := stream.read(_CHUNK):
        data += chunk
        found = data.find(begin)
        if found >= 0:
            return place + found
        place += len(data) - len(begin)
        data = data[-len(begin) :]
    return None


def _ends_well(stream: BinaryIO, place: int) -> bool:
    """Whether a gzip file's last members, from a place on, are whole: fastwarc says nothing of one that is cut off."""
    stream.seek(place)
    member = zlib.decompressobj(31)
    whole = True
    while chunk := stream.read(_CHUNK):
        while chunk:
            try:
                member.decompress(chunk, _CHUNK)
            except zlib.error:
                return True  # no gzip member: padding
            whole = member.eof
            chunk = member.unused_data if whole else member.unconsumed_tail
            if whole:
                member = zlib.decompressobj(31)
    return whole


def _warc_page(
    record: Any, limits: FetchLimits, texts: Collection[str], agent: str, batch: PairBatch | None
) -> PageImages | str:
    """The page of a response, or why it gives none; "" for a record that is no response."""
    headers = record.http_headers
    reason = _unusable(headers, record)
    if reason is not None:
        return reason
    content = record.reader.read(limits.max_bytes + 1)
    if len(content) > limits.max_bytes:
        return "too_large"
    if len(content) < record.content_length and not (
        "transfer-encoding" in headers or "content-encoding" in headers
    ):  # encoded ones that were cut off cannot be told
        return "broken_record"
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")
    asking = [(name, value) for name in ASKING for value in headers.get_multiple(name)]
    if batch is None:
        return read_page(content, url, record.http_charset, headers=asking, texts=texts, agent=agent)
    return add_page(batch, content, url, record.http_charset, headers=asking, texts=texts, agent=agent)


def _unusable(headers: Any, record: Any) -> str | None:
    if not record.is_http:
        return ""
    status = getattr(headers, "status_code", None)
    if status is None:
        return "protocol"
    if status != 200:
        return {4: "http_4xx", 5: "http_5xx"}.get(status // 100, "protocol")
    if record.http_content_type not in ("text/html", "application/xhtml+xml"):
        return "not_html"
    return None


def _wat_page(record: Any, texts: Collection[str], agent: str) -> PageImages | str:
    if not (record.headers.get("Content-Type") or "").startswith("application/json"):
        return ""  # what an archiver notes about a capture
    reason, url, headers, markup = read_wat(record.reader.read())
    if reason is not None:
        return "" if reason == "skip" else reason
    return pairs_of(markup, url, headers=headers, texts=texts, agent=agent)
