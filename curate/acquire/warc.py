"""Reads HTML pages from WARC files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from curate.acquire.fetch import Page
from curate.errors import RequestError

_LOG = logging.getLogger(__name__)


def warc_pages(path: Path, failures: Counter[str], *, max_bytes: int = 8_000_000) -> Iterator[Page]:
    """The HTML pages of a .warc or .warc.gz file, in its order.

    What cannot be used is added to `failures` by reason: not_html, http_4xx, http_5xx, protocol, too_large
    (more than `max_bytes`), broken_warc (once, for the unreadable rest of a file). Raises RequestError if the
    file holds no response at all.
    """
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    records = 0
    with path.open("rb") as stream:
        try:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response, auto_decode="all"):
                records += 1
                url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")
                reason = _unusable(record.http_headers, record.http_content_type)
                content = b"" if reason else record.reader.read(max_bytes + 1)
                if len(content) > max_bytes:
                    reason = "too_large"
                if reason:
                    failures[reason] += 1
                else:
                    yield Page(url, content, record.http_charset)
        except (OSError, ValueError, EOFError) as broken:  # a file that was cut off keeps what was read so far
            _LOG.warning("%s: cannot be read past %d responses (%s)", path, records, broken)
            failures["broken_warc"] += bool(records)
    if records == 0:
        raise RequestError(f"{path}: holds no WARC response records")


def _unusable(headers: object, content_type: str | None) -> str | None:
    status = getattr(headers, "status_code", None)
    if status is None:
        return "protocol"
    if status != 200:
        return {4: "http_4xx", 5: "http_5xx"}.get(status // 100, "protocol")
    if content_type not in ("text/html", "application/xhtml+xml"):
        return "not_html"
    return None
