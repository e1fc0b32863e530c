"""The texts and addresses of images that are as plain as most: compiled. The others are left to `html`.

What is written here is what `html_text.fold`, `html_text.attribute_text` and `html_urls.absolute_url` would give, or
nothing at all: a reference, a space or an address of a rare kind, and bytes that are no UTF-8, are not decided here.
"""

from __future__ import annotations

from curate.acquire.compiled import Bytes, Table, compiled
from curate.acquire.html_addresses import UNSURE, reference_at, write_address
from curate.acquire.html_scan import ALT, FIGCAPTION, FIRST, IMAGE, KIND, TO, UP
from curate.acquire.html_srcset import NONE, largest_in
from curate.acquire.html_tokens import is_space

# Columns of a row of pairs. Places are offsets in the arena: an address, and its caption behind it.
PAGE, ORDER, URL, CAPTION, STOP, TEXT, WIDTH, HEIGHT = range(8)
PAIR_COLUMNS = 8
PER_IMAGE = 8  # steps of ORDER from one image to the next

_MAX_CAPTION = 4096
_MAX_SIDE = 100_000
_SETS = (FIRST + 4, FIRST + 12, FIRST + 14)  # srcset, data-srcset, data-lazy-srcset
_SINGLE = (FIRST + 6, FIRST + 8, FIRST + 10, FIRST + 2)  # data-src, data-original, data-lazy-src, src
_WIDTH, _HEIGHT = FIRST + 16, FIRST + 18


@compiled
def _wide(d: Bytes, i: int, end: int) -> tuple[int, bool]:
    """The size of the UTF-8 character of several bytes at a place, 0 if it is none, and whether it is a space."""
    c = d[i]
    size = 2 if 0xC2 <= c <= 0xDF else 3 if 0xE0 <= c <= 0xEF else 4 if 0xF0 <= c <= 0xF4 else 0
    if size == 0 or i + size > end:
        return 0, False
    for k in range(1, size):
        if d[i + k] & 0xC0 != 0x80:
            return 0, False
    second = d[i + 1]
    if (c == 0xE0 and second < 0xA0) or (c == 0xED and second > 0x9F):
        return 0, False
    if (c == 0xF0 and second < 0x90) or (c == 0xF4 and second > 0x8F):
        return 0, False
    if c == 0xC2:
        return size, second == 0x85 or second == 0xA0
    if size != 3:
        return size, False
    last = d[i + 2]
    if c == 0xE2 and second == 0x80:
        return size, last <= 0x8B or last == 0xA8 or last == 0xA9 or last == 0xAF
    space = (c == 0xE1 and second == 0x9A and last == 0x80) or (c == 0xE2 and second == 0x81 and last == 0x9F)
    return size, space or (c == 0xE3 and second == 0x80 and last == 0x80) or (
        c == 0xEF and second == 0xBB and last == 0xBF
    )


@compiled
def write_text(d: Bytes, i: int, end: int, utf8: bool, arena: Bytes, at: int) -> int:
    """Writes an attribute's text, white space folded; behind it, or UNSURE."""
    first, gap = at, False
    if end - i > _MAX_CAPTION:
        return UNSURE
    while i < end:
        c, size = int(d[i]), 1
        if c == 38:
            c, size = reference_at(d, i, end)
            if c < 0:
                return UNSURE
        elif c >= 128:
            if not utf8:
                return UNSURE
            size, space = _wide(d, i, end)
            if size == 0:
                return UNSURE
            c = 32 if space else c
        if c <= 32 or c == 127:
            gap = at > first
        else:
            if gap:
                arena[at] = 32
                at += 1
                gap = False
            if c < 128:
                arena[at] = c
                at += 1
            else:
                for k in range(size):
                    arena[at + k] = d[i + k]
                at += size
        i += size
    return at


@compiled
def _inline(d: Bytes, i: int, end: int) -> bool:
    return i + 4 < end and d[i] == 100 and d[i + 1] == 97 and d[i + 2] == 116 and d[i + 3] == 97 and d[i + 4] == 58


@compiled
def _pixels(d: Bytes, i: int, end: int) -> int:
    """Pixels of a width or height attribute, 0 for none, UNSURE with references in it."""
    for k in range(i, end):
        if d[k] == 38:
            return UNSURE
        if d[k] == 37:
            return 0
    while i < end and (d[i] == 32 or 9 <= d[i] <= 13):
        i += 1
    value, digits = 0, 0
    while i < end and digits < 6 and 48 <= d[i] <= 57:
        value, digits, i = value * 10 + int(d[i]) - 48, digits + 1, i + 1
    return value if value <= _MAX_SIDE else 0


@compiled
def _source(d: Bytes, image: Table) -> tuple[int, int]:
    """Where the reference to an image starts and ends; it starts at UNSURE, or NONE."""
    for column in _SETS:
        if image[column + 1] > image[column]:
            start, end = largest_in(d, image[column], image[column + 1])
            if start != NONE:
                return start, end
    for column in _SINGLE:
        start, end = image[column], image[column + 1]
        while start < end and is_space(d[start]):
            start += 1
        if start < end and not _inline(d, start, end):
            return start, end
    return NONE, 0


@compiled
def _pair(d: Bytes, image: Table, utf8: bool, folder: Bytes, origin: int, arena: Bytes, row: Table) -> int:
    """Writes the pair of an image with an alt text: 1, 0 if it has no text, UNSURE, or -2 if it has no address."""
    at = row[URL]
    start, end = _source(d, image)
    if start == UNSURE:
        return UNSURE
    # The text first, behind where an address can end: most images have none, or one that is plain.
    if start == NONE:
        text = write_text(d, image[ALT], image[ALT + 1], utf8, arena, at)
        return UNSURE if text < 0 or image[TO] >= 0 else 0 if text == at else -2
    row[CAPTION] = write_address(d, start, end, folder, origin, arena, at)
    if row[CAPTION] < 0:
        text = write_text(d, image[ALT], image[ALT + 1], utf8, arena, at)
        return 0 if text == at else UNSURE
    row[STOP] = write_text(d, image[ALT], image[ALT + 1], utf8, arena, row[CAPTION])
    if row[STOP] <= row[CAPTION]:
        return UNSURE if row[STOP] < 0 else 0
    row[WIDTH] = _pixels(d, image[_WIDTH], image[_WIDTH + 1])
    row[HEIGHT] = _pixels(d, image[_HEIGHT], image[_HEIGHT + 1])
    return UNSURE if row[WIDTH] < 0 or row[HEIGHT] < 0 else 1


@compiled
def write_pairs(
    d: Bytes, found: Table, utf8: bool, folder: Bytes, origin: int, arena: Bytes, at: int, pairs: Table, page: int,
    counts: Table,
) -> tuple[int, int]:  # fmt: skip
    """Writes a page's plain pairs; how many, and where the arena goes on. What is found of other images stays.

    `counts` gets the images, those without text, those without an address, and those that are not decided here; the
    KIND of the others becomes -1.
    """
    counts[:] = 0
    rows = 0
    for k in range(found.shape[0]):
        if found[k, KIND] == FIGCAPTION:
            found[found[k, UP], FIRST] = 1  # this figure has a caption
    for k in range(found.shape[0]):
        image = found[k]
        if image[KIND] != IMAGE:
            continue
        counts[0] += 1
        captioned = image[UP] >= 0 and found[image[UP], FIRST] == 1
        if image[ALT + 1] <= image[ALT] and not captioned:
            image[KIND] = -1
            counts[1] += 1
            continue
        row = pairs[rows]
        row[URL] = at
        gives = UNSURE if captioned else _pair(d, image, utf8, folder, origin, arena, row)
        if gives == UNSURE:
            counts[3] += 1
            continue
        image[KIND] = -1
        counts[1] += gives == 0
        counts[2] += gives == -2
        if gives == 1:
            row[PAGE], row[ORDER], row[TEXT] = page, (k + 1) * PER_IMAGE, 0
            at = row[STOP]
            rows += 1
    return rows, at
