"""Reads the records of WARC and WAT files: decompressed ahead by a thread, and past places that are broken.

gzip files are decompressed by ISA-L in a thread, without Python's lock, while the pages before are read. It says
nothing of where in the file a record is, so a file that turns out to be damaged is read again by fastwarc alone, from
the first record that was not given yet.
"""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType
from isal import igzip_threaded
from isal.igzip_lib import IsalError

from curate.acquire.failures import status_reason

_LOG = logging.getLogger(__name__)
_CHUNK, _BUFFER = 1 << 20, 1 << 18
_GZIP, _WARC = b"\x1f\x8b\x08", b"WARC/1."
_MAX_BREAKS = 1000  # per file
_WANTED = WarcRecordType.response | WarcRecordType.metadata | WarcRecordType.revisit | WarcRecordType.conversion


def read_records(
    source: str, stream: BinaryIO, failures: Counter[str], max_bytes: int
) -> Iterator[tuple[WarcRecord, bytes | str]]:
    """The records of a file that may tell of pages, each with its decoded content or the reason why it has none to use.

    The reason is "" for a record that tells of no page. Places that could not be read are added to `failures` as
    broken_warc, and are gone on behind at the next record.

    Args:
        source: what messages call the file.
        stream: can go back to its start.
        max_bytes: of the content of a record.
    """
    begin = stream.read(len(_WARC))
    stream.seek(0)
    given = 0
    if packed := begin.startswith(_GZIP):
        for read in _ahead(stream, max_bytes):
            if read is None:
                break
            yield read
            given += 1
        else:
            return
        stream.seek(0)
    breaks, content, watched = failures["broken_warc"], None, _Watched(stream, quiet=False)
    for record in _past_breaks(source, watched, failures, _GZIP if packed else _WARC):
        if given:
            given -= 1
        else:
            content = _content(record, max_bytes)
            yield record, content
    cut = begin == _WARC and not watched.end.endswith((b"\r\n\r\n", b"\n\n"))
    if cut and content != "broken_record" and failures["broken_warc"] == breaks:
        failures["broken_warc"] += 1
        _LOG.warning("%s: the file was cut off", source)


def _ahead(stream: BinaryIO, max_bytes: int) -> Iterator[tuple[WarcRecord, bytes | str] | None]:
    """The records of a gzip file; None for what cannot be read, and then no more."""
    with igzip_threaded.open(stream, "rb", threads=1, block_size=_CHUNK) as unpacked:
        whole: Any = _Watched(unpacked, quiet=True)
        try:
            for record in ArchiveIterator(whole, record_types=_WANTED, auto_decode="all", buffer_size=_BUFFER):
                content = _content(record, max_bytes)
                if whole.broken:
                    break
                yield record, content
        except (OSError, ValueError, EOFError):
            whole.broken = True
        if whole.broken:
            yield None


class _Watched:
    """A stream whose last bytes are known; a quiet one ends where it breaks, as fastwarc takes errors for the end."""

    def __init__(self, stream: Any, *, quiet: bool) -> None:
        self._stream, self._quiet = stream, quiet
        self.broken = False
        self.end = b""

    def read(self, size: int = -1) -> bytes:
        try:
            content: bytes = self._stream.read(size)
        except (OSError, EOFError, IsalError):  # type: ignore[misc] # its stub calls it no exception
            self.broken = True
            if self._quiet:
                return b""
            raise
        self.end = content[-4:] or self.end
        return content

    def seek(self, place: int) -> int:
        return int(self._stream.seek(place))

    def tell(self) -> int:
        return int(self._stream.tell())


def _content(record: WarcRecord, max_bytes: int) -> bytes | str:
    """What a record holds, or the reason why it is not used."""
    if record.record_type == WarcRecordType.revisit:
        return "revisit"
    if record.record_type == WarcRecordType.conversion:
        return "conversion"
    is_page = record.record_type == WarcRecordType.response
    reason = _unusable(record) if is_page else None if _is_json(record) else ""  # what an archiver notes of a capture
    if reason is not None:
        return reason
    content = record.reader.read(max_bytes + 1)
    if len(content) > max_bytes:
        return "too_large"
    if is_page and len(content) < record.content_length:
        headers = record.http_headers  # encoded ones that were cut off cannot be told
        if not ("transfer-encoding" in headers or "content-encoding" in headers):
            return "broken_record"
    return content


def _unusable(record: WarcRecord) -> str | None:
    if not record.is_http:
        return ""
    status = getattr(record.http_headers, "status_code", None)
    if status is None:
        return "protocol"
    if status != 200:
        return status_reason(status)
    if record.http_content_type not in ("text/html", "application/xhtml+xml"):
        return "not_html"
    return None


def _is_json(record: WarcRecord) -> bool:
    return (record.headers.get("Content-Type") or "").startswith("application/json")


def _past_breaks(source: str, stream: Any, failures: Counter[str], begin: bytes) -> Iterator[WarcRecord]:
    """The records of a file that begin with some bytes, past places that are broken."""
    place, started = 0, 0
    for _ in range(_MAX_BREAKS):
        try:
            for record in ArchiveIterator(stream, record_types=_WANTED, auto_decode="all"):
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


def _next_record(stream: Any, begin: bytes, place: int) -> int | None:
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


def _ends_well(stream: Any, place: int) -> bool:
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
