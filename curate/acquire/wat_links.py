"""Finds the images among the links of a WAT record, in its bytes: of its JSON, most is links that no image needs.

Compiled. A record that is not written as Common Crawl's extractor does (with spaces, in another order) is not decided
here.
"""

from __future__ import annotations

import numpy as np

from curate.acquire.compiled import Bytes, Table, compiled
from curate.acquire.html_addresses import UNSURE
from curate.acquire.html_markup import Scanned
from curate.acquire.html_scan import ALT, COLUMN, COLUMNS, FIRST, IMAGE, KIND, LINK, SRC, START, TO, UP
from curate.acquire.html_text import attribute_text
from curate.acquire.html_tokens import U, holds
from curate.acquire.json_tokens import ESCAPED, is_word, member_at, string_end, value_end, write_string
from curate.acquire.warc_wat import TAKEN_OUT

_URL_COLUMN, _REL_COLUMN = COLUMN["href"], COLUMN["rel"]
_PATH, _URL, _ALT_NAME, _REL_NAME = (np.frombuffer(name, np.uint8) for name in (b"path", b"url", b"alt", b"rel"))
_BEFORE = np.frombuffer(b'{"path":', np.uint8)
_IMG, _A, _L, _R = (np.frombuffer(name, np.uint8) for name in (b'"IMG', b'"A', b'"LINK', b'"AREA'))
_SRC, _HREF = np.frombuffer(b'@/src"', np.uint8), np.frombuffer(b'@/href"', np.uint8)
_OTHER = -2
_LEAST = 1 + _BEFORE.size + _A.size  # bytes of an array before the @ of its first path; more stand before the array
_LICENSE, _COMMONS = np.frombuffer(b"license", np.uint8), np.frombuffer(b"creativecommons.org/", np.uint8)


@compiled
def _link(d: Bytes, i: int, n: int, spans: Table) -> int:
    """Notes where the strings of a link, whose members begin at a place, start and end; behind it, -1 if it is broken.

    `spans` is of path, url, alt and rel: -1 for one that it has not, and nothing for what is no string.
    """
    spans[:] = -1
    first = True
    while True:
        name, end, i = member_at(d, i, n, first)
        if name < 0:
            break
        value, stop, first = i + 1, i + 1, False
        if d[i] == 34:
            stop = string_end(d, value, n)
            i = stop + 1
        else:
            i = value_end(d, i, n)
        which = -1
        if is_word(d, name, end, _PATH):
            which = 0
        elif is_word(d, name, end, _URL):
            which = 1
        elif is_word(d, name, end, _ALT_NAME):
            which = 2
        elif is_word(d, name, end, _REL_NAME):
            which = 3
        if which >= 0:
            spans[which, 0], spans[which, 1] = value, stop
    for k in range(spans[0, 0], spans[0, 1]):
        if d[k] == 92:
            return -1
    return i if name == -1 else -1


@compiled
def _kind(d: Bytes, i: int, end: int, licences: bool) -> int:
    """What a link is by the @ in its path: IMAGE, LINK for one that may be to a licence, _OTHER, or UNSURE."""
    if d[i - 1] == 71 and is_word(d, i - 4, i, _IMG):
        kind, path = IMAGE, i - 4
    elif licences and is_word(d, i - 2, i, _A):
        kind, path = LINK, i - 2
    elif licences and (is_word(d, i - 5, i, _L) or is_word(d, i - 5, i, _R)):
        kind, path = LINK, i - 5
    else:
        return _OTHER
    if d[path - 1] == 92:
        return _OTHER  # the quote is one in a string
    if i + 8 > end or d[i + 1] == 92 or not is_word(d, path - _BEFORE.size, path, _BEFORE):
        return UNSURE
    of = _SRC if kind == IMAGE else _HREF
    return kind if is_word(d, i, i + of.size, of) else _OTHER


@compiled
def _put(d: Bytes, span: Table, escape: bool, out: Bytes, at: int, row: Table, column: int) -> int:
    """Writes a string and notes where it is in a row; behind it, -1 if it is broken."""
    if span[0] >= 0 and at >= 0:
        row[column] = at
        at = write_string(d, span[0], span[1], escape, out, at)
        row[column + 1] = at
    return at


@compiled
def read_links(d: Bytes, i: int, end: int, licences: bool, escape: bool, out: Bytes, found: Table) -> tuple[int, int]:
    """Reads the links between two places: how many rows of `found` they are, and how many bytes of `out` were filled.

    The rows are as those of `html_scan.scan`, of places in `out`: images, and links to a licence. UNSURE instead of
    their number if they are not as extractors write them, -2 if they are more than there are rows.

    Args:
        licences: whether there may be links to a licence.
        escape: write & as a reference.
    """
    spans, rows, at = np.empty((4, 2), np.int64), 0, 0
    i += _LEAST
    while True:
        while i < end and d[U(i)] != 64:
            i += 1
        if i >= end:
            return rows, at
        kind = _kind(d, i, end, licences)
        if kind == UNSURE:
            return UNSURE, 0
        if kind == _OTHER:
            i += 1
            continue
        path = i
        while d[path] != 123:
            path -= 1
        i = _link(d, path + 1, end, spans)
        if i < 0:
            return UNSURE, 0
        if kind == LINK and not (
            holds(d, spans[3, 0], spans[3, 1], _LICENSE) or holds(d, spans[1, 0], spans[1, 1], _COMMONS)
        ):
            continue
        if rows >= found.shape[0]:
            return -2, 0
        row = found[rows]
        row[FIRST:] = -1
        row[KIND], row[START], row[UP], row[TO] = kind, rows, -1, -1
        at = _put(d, spans[1], escape, out, at, row, SRC if kind == IMAGE else _URL_COLUMN)
        at = _put(d, spans[2 if kind == IMAGE else 3], escape, out, at, row, ALT if kind == IMAGE else _REL_COLUMN)
        if at < 0:
            return UNSURE, 0
        rows += 1


def links_in(content: bytes, escape: bool) -> tuple[bytes, Scanned] | None:
    """The record without its links, and those that matter: images, and links to a licence.

    A quoted name stands in no string of JSON, where quotes are escaped. Whether the right part was taken out is seen
    when the rest is read: it is no JSON, or has the links elsewhere, if not.

    Args:
        escape: write & as a reference, for values that are text and not markup.

    Returns:
        None where that is not decided here: the record is not as Common Crawl's extractor writes them.
    """
    start = content.find(b'"Links":[', content.find(b'"HTML-Metadata":{')) + len(b'"Links":')
    end = content.rfind(b"}]") + 2
    if start < len(b'"Links":') or end <= start + _LEAST:
        return None
    licences = b"icense" in content or b"creativecommons.org/" in content
    data, size = np.frombuffer(content, np.uint8), 64
    values = np.empty(len(content) * (ESCAPED if escape else 1), np.uint8)
    while True:
        found = np.empty((size, COLUMNS), np.int32)
        rows, used = read_links(data, start, end, licences, escape, values, found)
        if rows == UNSURE:
            return None
        if rows >= 0:
            rest = b'%b["%b"]%b' % (content[:start], TAKEN_OUT.encode(), content[end:])
            return rest, Scanned(values[:used].tobytes(), "utf-8", found=found[:rows])
        size *= 8


def licence_links(scanned: Scanned, escaped: bool) -> list[dict[str, str]]:
    """The links to a licence, as the record had them."""

    def value(row: list[int], column: int) -> str:
        text = scanned.decoder.decode(scanned.html[max(0, row[column]) : max(0, row[column + 1])])
        return attribute_text(text) if escaped else text

    links = scanned.found[scanned.found[:, KIND] == LINK].tolist()
    return [{"path": "A@/href", "url": value(row, _URL_COLUMN), "rel": value(row, _REL_COLUMN)} for row in links]
