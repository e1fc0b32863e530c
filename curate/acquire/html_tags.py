"""Finds the few tags that matter on an HTML page, without building its tree.

A tree costs several times what reading the page from an archive does. Here numpy finds where the few tags may begin,
and only there the rules of the HTML tokenizer are followed (https://html.spec.whatwg.org/multipage/parsing.html): what
is in comments, scripts, other raw text, templates and in the attributes of other tags is no tag. Works on bytes: in
every encoding that browsers know, but for UTF-16 and ISO-2022-JP, which must be decoded before, the bytes of < > = "
and ' are only these characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_NAMES = (
    b"img image figure figcaption picture source meta base html title script style template textarea iframe xmp "
    b"noframes noembed plaintext"
).split()
_RAW = frozenset(b"script style template textarea iframe xmp noframes noembed title".split())
_WANTED = frozenset(_NAMES)
_NAME = re.compile(rb"</?([a-zA-Z]+)(?=[\s/>])")
# A tag from < to >: quotes count after = only.
_TAG = re.compile(rb"<[a-zA-Z/!?](?:[^>=]++|=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s>\"'][^\s>]*+|))*+>")
_ATTRIBUTE = re.compile(rb"[\s/]*+([^\s/>=]++)(?:\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>]*+)))?")
_COMMENT_END = re.compile(rb"--!?>")
_ENDS = {name: re.compile(b"</" + b"".join(b"[%c%c]" % (c, c - 32) for c in name) + rb"(?=[\s/>])") for name in _RAW}
_ANY_TAG = re.compile(rb"<[a-zA-Z/!?]")


def _starts() -> np.ndarray:
    """By the lower five bits of the three bytes after a <, which leave out the case: may a tag of interest begin?"""
    table = np.zeros(1 << 15, bool)
    for name in (*_NAMES, b"/figure", b"!--"):
        table[(name[0] & 31) << 10 | (name[1] & 31) << 5 | name[2] & 31] = True
    return table


_STARTS = _starts()


class Tag(NamedTuple):
    """A tag of interest. `raw` is what is inside a script, title and the like, which has no tags."""

    name: bytes  # lower case; b"/figure" for its end
    start: int  # where its < is
    end: int  # behind its >
    raw: tuple[int, int] | None


def tags(html: bytes) -> Iterator[Tag]:
    """The tags of interest in page order: linear in the page's size, whatever it holds."""
    outside = 0  # a place that is known to be in no tag
    for start in _candidates(html):
        if start < outside:
            continue
        named = _NAME.match(html, start)
        name = named.group(1).lower() if named else b""
        if name not in _WANTED and not (named is None and html.startswith(b"<!--", start)):
            continue
        if not _plainly_outside(html, outside, start):
            outside = _through_tags(html, outside, start)
            if outside > start:
                continue
        if named is None:
            outside = _comment_end(html, start)
            continue
        whole = _TAG.match(html, start)
        if whole is None:  # never closed: to the tokenizer, the rest of the page is this tag
            return
        outside = end = whole.end()
        if html[start + 1] == 0x2F:
            if name == b"figure":
                yield Tag(b"/figure", start, end, None)
        elif name not in _RAW:
            if name == b"plaintext":
                return
            yield Tag(name, start, end, None)
        else:
            ending = _ENDS[name].search(html, end)
            outside = ending.start() if ending else len(html)
            yield Tag(name, start, end, (end, outside))


def _candidates(html: bytes) -> list[int]:
    """Where tags of interest and comments may begin, and a few others."""
    data = np.frombuffer(html, np.uint8)
    places = np.flatnonzero(data[:-3] == 0x3C)
    low = data & 31
    keys = (low[places + 1].astype(np.int16) << 10) | (low[places + 2].astype(np.int16) << 5) | low[places + 3]
    return places[_STARTS[keys]].tolist()


def _plainly_outside(html: bytes, since: int, place: int) -> bool:
    """Whether a look back tells that `place` is in no tag; `since` is an earlier place in none.

    A tag that holds `place` in a quoted value has an opening quote before it, and else no > after its last quote and <.
    """
    closed = html.rfind(b">", since, place)
    double, single = html.rfind(b'"', since, place), html.rfind(b"'", since, place)
    if closed < 0:
        return double < 0 and single < 0 and html.find(b"<", since, place) < 0
    if closed < double or closed < single or html.find(b"<", closed, place) >= 0:
        return False
    return not _opens(html, double) and not _opens(html, single)


def _opens(html: bytes, quote: int) -> bool:
    return quote > 0 and html[max(0, quote - 16) : quote].rstrip().endswith(b"=")


def _through_tags(html: bytes, place: int, to: int) -> int:
    """Goes from tag to tag, from a place that is in none: the end of the tag that holds `to`, else `to`."""
    while place < to:
        found = _ANY_TAG.search(html, place, to + 2)
        if found is None or found.start() >= to:
            return to
        whole = _TAG.match(html, found.start())
        place = whole.end() if whole else len(html)
    return place


def _comment_end(html: bytes, start: int) -> int:
    if html.startswith((b">", b"->"), start + 4):
        return html.index(b">", start) + 1
    end = _COMMENT_END.search(html, start + 4)
    return end.end() if end else len(html)


def tag_at(html: bytes, start: int, names: tuple[bytes, ...]) -> Tag | None:
    """The tag that begins at a place, if it is one of these names."""
    named = _NAME.match(html, start) if start >= 0 else None
    whole = _TAG.match(html, start) if named and named.group(1).lower() in names else None
    return Tag(named.group(1).lower(), start, whole.end(), None) if named and whole else None


def attributes(tag: bytes) -> dict[bytes, bytes]:
    """The raw attributes of a tag's bytes, names in lower case; the first of equal names, as browsers do."""
    body = tag[1:].lstrip(b"/")
    found = _ATTRIBUTE.findall(body)[1:]
    return {name.lower(): double or single or bare for name, double, single, bare in reversed(found)}
