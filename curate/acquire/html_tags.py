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
_WANTED = frozenset((*_NAMES, b"/figure"))
_BEFORE_VALUE = frozenset(b"= \t\n\f\r")  # what may stand before the quote that opens a value
# A tag from < to >: quotes count after = only.
_REST = rb"(?:[^>=]++|=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s>\"'][^\s>]*+|))*+>"
_NAMED = re.compile(rb"<(/?[a-zA-Z]++)(?=[\s/>])(" + _REST + rb")?")
_TAG = re.compile(rb"<[a-zA-Z/!?]" + _REST)
_ATTRIBUTE = re.compile(r"([^\s/>=]++)(?:\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>]*+)))?", re.ASCII)
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
    new = tuple.__new__  # a third of the time of NamedTuple's own
    starts = _candidates(html)
    for start, following in zip(starts, [*starts[1:], len(html)], strict=False):
        if start < outside:
            continue
        named = _NAMED.match(html, start)
        if named is None:
            # A comment that ends before the next candidate hides nothing, whether it is one or not.
            if html[start + 1 : start + 4] == b"!--" and html.find(b"-->", start + 4, following) < 0:
                outside = _outside(html, outside, start)
                if outside == start:
                    outside = _comment_end(html, start)
            continue
        name = named.group(1).lower()
        if name not in _WANTED:
            continue
        # The quick look back: a > right before, and no quote opens a value before it.
        double, single = html.rfind(b'"', outside, start), html.rfind(b"'", outside, start)
        if not (
            start > outside
            and html[max(outside, start - 32) : start].rstrip().endswith(b">")
            and html[double - 1] not in _BEFORE_VALUE
            and html[single - 1] not in _BEFORE_VALUE
        ):
            outside = _outside(html, outside, start)
            if outside > start:
                continue
        if named.group(2) is None:  # never closed: to the tokenizer, the rest of the page is this tag
            return
        outside = end = named.end()
        if name not in _RAW:
            if name == b"plaintext":
                return
            yield new(Tag, (name, start, end, None))
        else:
            ending = _ENDS[name].search(html, end)
            outside = ending.start() if ending else len(html)
            yield new(Tag, (name, start, end, (end, outside)))


def _candidates(html: bytes) -> list[int]:
    """Where tags of interest and comments may begin, and a few others."""
    data = np.frombuffer(html, np.uint8)
    places = np.flatnonzero(data[:-3] == 0x3C)
    low = data & 31
    keys = (low[places + 1].astype(np.int16) << 10) | (low[places + 2].astype(np.int16) << 5) | low[places + 3]
    return places[_STARTS[keys]].tolist()


def _outside(html: bytes, since: int, place: int) -> int:
    """`place` if it is in no tag, else the end of the tag that holds it; `since` is an earlier place in none.

    A tag that holds `place` in a quoted value has an opening quote before it, and else no > after its last quote and <.
    """
    closed = html.rfind(b">", since, place)
    double, single = html.rfind(b'"', since, place), html.rfind(b"'", since, place)
    if closed < 0:
        if double < 0 and single < 0 and html.find(b"<", since, place) < 0:
            return place
    elif (
        closed > double
        and closed > single
        and html.find(b"<", closed, place) < 0
        and not _opens(html, double)
        and not _opens(html, single)
    ):
        return place
    return _through_tags(html, since, place)


def _opens(html: bytes, quote: int) -> bool:
    return quote > 0 and html[max(0, quote - 16) : quote].rstrip().endswith(b"=")


def _through_tags(html: bytes, place: int, to: int) -> int:
    """Goes from tag to tag, from a place that is in none: the end of the tag or comment that holds `to`, else `to`."""
    while place < to:
        found = _ANY_TAG.search(html, place, to + 2)
        if found is None or found.start() >= to:
            return to
        if html.startswith(b"<!--", found.start()):
            place = _comment_end(html, found.start())
            continue
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
    named = _NAMED.match(html, start) if start >= 0 else None
    if named is None or named.group(2) is None or named.group(1).lower() not in names:
        return None
    return Tag(named.group(1).lower(), start, named.end(), None)


def attributes(tag: str) -> dict[str, str]:
    """The attributes of a tag, as written, names in lower case; the first of equal names, as browsers do."""
    found = _ATTRIBUTE.findall(tag, 1)
    found.reverse()
    found.pop()  # the tag's own name
    return {name.lower(): double or single or bare for name, double, single, bare in found}
