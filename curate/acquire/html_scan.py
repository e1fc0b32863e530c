"""Finds the few tags that matter on an HTML page, in one pass over its bytes and without building its tree.

What is in comments, scripts, other raw text, templates and in the attributes of other tags is no tag: every tag is
gone through as the HTML standard says (`html_tokens`).
"""

from __future__ import annotations

import threading

import numpy as np

from curate.acquire.compiled import Bytes, Table, compiled
from curate.acquire.html_tokens import (
    SCRIPT,
    U,
    equal,
    holds,
    is_letter,
    key_of,
    name_at,
    next_attribute,
    not_markup,
    raw_end,
    through,
)

# Kinds of what is found.
IMAGE, META, BASE, HTML, TITLE, JSON_LD, FIGURE, FIGCAPTION, SOURCE, LINK = range(10)
# Columns of a row of what is found; places are offsets of bytes.
KIND, START, END = 0, 1, 2  # from the < to behind the >
UP = 3  # row of the figure around an image, figcaption or figure, or of the picture around a source; -1 for none
TO = 4  # where a title's, script's or caption's content ends; 1 for a closed figure; an image's picture
FIRST = 5  # start and end of each of ATTRIBUTES, -1 where a tag has it not
_IMAGE_ATTRIBUTES = "alt src srcset data-src data-original data-lazy-src data-srcset data-lazy-srcset width height"
ATTRIBUTES = (*_IMAGE_ATTRIBUTES.split(), "name", "property", "content", "lang", "href", "rel")
OF_IMAGES = 10
ALT, SRC = FIRST, FIRST + 2
COLUMNS = FIRST + 2 * len(ATTRIBUTES)
COLUMN = {name: FIRST + 2 * place for place, name in enumerate(ATTRIBUTES)}

_LONGEST = 16


def _padded(names: tuple[str, ...]) -> np.ndarray:
    return np.array([list(name.encode().ljust(_LONGEST, b"\0")) for name in names], np.uint8)


_NAMES = _padded(ATTRIBUTES)
_LENGTHS = np.array([len(name) for name in ATTRIBUTES])
_LD_JSON, _LICENSE = np.frombuffer(b"ld+json", np.uint8), np.frombuffer(b"license", np.uint8)
_COMMONS = np.frombuffer(b"creativecommons.org/", np.uint8)
_ROBOTS, _TDM, _OG = (np.frombuffer(word, np.uint8) for word in (b"robots", b"tdm-", b"og:"))
_META_NAME = FIRST + 2 * OF_IMAGES
_REL, _HREF, _TYPE = (np.frombuffer(word, np.uint8) for word in (b"rel", b"href", b"type"))
_TAGS = (
    "img image meta base html title script template plaintext figure figcaption picture source a area link style "
    "textarea iframe xmp noframes noembed"
)
_IMG, _IMG2, _META, _BASE, _HTML, _TITLE = (key_of(name) for name in ["img", "image", "meta", "base", "html", "title"])
_TEMPLATE, _PLAINTEXT = key_of("template"), key_of("plaintext")
_FIGURE, _FIGCAPTION, _PICTURE, _SOURCE = (key_of(name) for name in ["figure", "figcaption", "picture", "source"])
_A, _AREA, _LINK = (key_of(name) for name in ["a", "area", "link"])
_STYLE, _TEXTAREA, _IFRAME = (key_of(name) for name in ["style", "textarea", "iframe"])
_XMP, _NOFRAMES, _NOEMBED = (key_of(name) for name in ["xmp", "noframes", "noembed"])


def _starts() -> np.ndarray:
    """By the lower five bits of the two bytes behind <: may a tag of interest begin?"""
    table = np.zeros(1 << 10, np.uint8)
    for name in _TAGS.split():
        table[(ord(name[0]) & 31) << 5 | (ord(name[1]) & 31 if len(name) > 1 else 0)] = 1
    for behind in b" \t\n\r\f/>":
        table[1 << 5 | behind & 31] = 1  # a, whose name ends there
    return table


_STARTS = _starts()


@compiled
def _is_commons(d: Bytes, i: int, end: int) -> bool:
    """Whether a value is an address at Creative Commons."""
    if end - i < 22 or d[U(i)] | 32 != 104:
        return False
    i += 7 if d[i + 4] == 58 else 8
    if i + 4 < end and d[U(i)] | 32 == 119:
        i += 4
    return i + _COMMONS.size <= end and equal(d, i, i + _COMMONS.size, _COMMONS)


@compiled
def _noted(d: Bytes, i: int, n: int, row: Table, a: int, to: int) -> int:
    """Notes where some of ATTRIBUTES are in a tag whose name ends at a place, the first of equal names.

    Behind the tag; -1 where the page ends before.
    """
    row[FIRST:] = -1
    while True:
        i, name, end, value, value_end = next_attribute(d, i, n)
        if name < 0:
            return i
        for k in range(a, to):
            if end - name == _LENGTHS[k] and row[FIRST + 2 * k] < 0 and equal(d, name, end, _NAMES[k, : end - name]):
                row[FIRST + 2 * k], row[FIRST + 2 * k + 1] = value, value_end
                break


@compiled
def _told(d: Bytes, i: int, n: int, key: int) -> tuple[int, bool]:
    """Behind a link or script whose name ends at a place, and whether it says what may matter."""
    told = False
    while True:
        i, name, end, value, to = next_attribute(d, i, n)
        if name < 0:
            return i, told
        first = d[name] | 32
        if to <= value or not (first == 104 or first == 114 or first == 116):
            continue
        if key == SCRIPT:
            told |= equal(d, name, end, _TYPE) and holds(d, value, to, _LD_JSON)
        elif equal(d, name, end, _REL):
            told |= holds(d, value, to, _LICENSE)
        elif equal(d, name, end, _HREF):  # its host: the first bytes
            told |= _is_commons(d, value, to)


@compiled
def _matters(d: Bytes, row: Table, agent: Bytes) -> bool:
    """Whether a meta is of OpenGraph or asks something of crawlers."""
    for k in range(_META_NAME, _META_NAME + 4, 2):
        start, end = row[k], row[k + 1]
        if holds(d, start, end, _OG) or holds(d, start, end, _ROBOTS) or holds(d, start, end, _TDM):
            return True
        if agent.size > 0 and holds(d, start, end, agent):
            return True
    return False


@compiled
def _is_raw(key: int) -> bool:
    return key in (SCRIPT, _STYLE, _TITLE, _TEXTAREA, _IFRAME, _XMP, _NOFRAMES, _NOEMBED)


@compiled
def scan(d: Bytes, agent: Bytes, found: Table) -> int:
    """Fills the table with what matters, in page order; how many rows, -1 if they are more than the table has.

    Metas are those whose name or property has og:, robots, tdm- or `agent` (lower case) in it; links (a, area, link)
    those to a licence; scripts those of JSON-LD. Linear in the page's size, whatever it holds.
    """
    n, i, k, hidden = d.size, 0, 0, 0
    figure, caption, picture = -1, -1, -1  # the rows of those that are open
    while True:
        while i < n and d[U(i)] != 60:
            i += 1
        if i + 1 >= n:
            break
        closing = d[i + 1] == 47
        name = i + 2 if closing else i + 1
        if name >= n:
            break
        if not is_letter(d[name]):
            if closing or d[name] == 33 or d[name] == 63:
                i = not_markup(d, i, n)
            else:
                i += 1
            continue
        if not _STARTS[(int(d[name]) & 31) << 5 | (int(d[name + 1]) & 31 if name + 1 < n else 0)]:
            i = through(d, name, n)
            if i < 0:
                break
            continue
        key, end = name_at(d, name, n)
        if k >= found.shape[0]:
            return -1
        row = found[k]
        row[KIND], row[START], row[UP], row[TO] = -1, i, -1, -1
        start, told = i, True
        if closing:
            i = through(d, end, n)
            if i < 0:
                break
            if key == _TEMPLATE:
                hidden = max(0, hidden - 1)
            elif hidden == 0 and (key in (_FIGURE, _FIGCAPTION)):
                if caption >= 0:
                    found[caption, TO] = start
                    caption = -1
                if key == _FIGURE and figure >= 0:
                    found[figure, TO] = 1
                    figure = found[figure, UP]
            elif key == _PICTURE and hidden == 0:
                picture = -1
            continue
        if key in (_IMG, _IMG2):
            row[KIND], row[UP], row[TO] = IMAGE, figure, picture
            i = _noted(d, end, n, row, 0, OF_IMAGES)
            if hidden == 0:
                picture = -1
        elif key in (SCRIPT, _A, _LINK, _AREA):
            i, told = _told(d, end, n, key)
            row[KIND] = JSON_LD if key == SCRIPT else LINK
            if told and key != SCRIPT and i >= 0:
                _noted(d, end, n, row, OF_IMAGES, _LENGTHS.size)
        elif key in (_META, _BASE, _HTML) or (key == _SOURCE and picture >= 0):
            i = _noted(d, end, n, row, 1, _LENGTHS.size)
            row[KIND] = META if key == _META else BASE if key == _BASE else HTML if key == _HTML else SOURCE
            row[UP] = picture
            told = key != _META or _matters(d, row, agent)
        else:
            i = through(d, end, n)
        if i < 0:
            break
        row[END] = i
        if _is_raw(key):
            i = raw_end(d, i, n, key)
            row[TO] = i
            if key == _TITLE:
                row[KIND] = TITLE
        elif key == _TEMPLATE:
            hidden += 1
        elif key == _PLAINTEXT:
            break
        elif hidden == 0 and key == _PICTURE:
            picture = start
        elif hidden == 0 and (key in (_FIGURE, _FIGCAPTION)):
            if caption >= 0:
                found[caption, TO] = start
                caption = -1
            row[UP] = figure
            if key == _FIGURE:
                row[KIND] = FIGURE
                figure = k
            elif figure >= 0:
                row[KIND] = FIGCAPTION
                caption = k
        if row[KIND] >= 0 and told and hidden == 0:
            k += 1
    if caption >= 0:
        found[caption, TO] = n
    return k


class _Scratch(threading.local):
    """A table that each thread fills again and again: making one for each page costs a tenth of reading it."""

    def __init__(self) -> None:
        self.table = np.empty((512, COLUMNS), np.int32)


_SCRATCH = _Scratch()


def found_on(html: bytes, agent: bytes) -> np.ndarray:
    """What matters on a page, see `scan`: int32 (rows, COLUMNS)."""
    data, name = np.frombuffer(html, np.uint8), np.frombuffer(agent, np.uint8)
    found = _SCRATCH.table
    while True:
        count = scan(data, name, found)
        if count >= 0:
            return found[:count].copy()
        found = np.empty((8 * len(found), COLUMNS), np.int32)
