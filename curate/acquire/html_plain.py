"""The pairs of images that are as plain as most: compiled. The others are left to `html`, see `html_texts`."""

from __future__ import annotations

from curate.acquire.compiled import Bytes, Table, compiled
from curate.acquire.html_addresses import UNSURE, is_data, write_address
from curate.acquire.html_scan import ALT, END, FIGCAPTION, FIGURE, FIRST, IMAGE, KIND, START, TO, UP
from curate.acquire.html_srcset import NONE, largest_in
from curate.acquire.html_texts import write_caption, write_text
from curate.acquire.html_tokens import is_space

# Columns of a row of pairs. Places are offsets in the arena: an address, and its caption behind it.
PAGE, ORDER, URL, CAPTION, STOP, TEXT, WIDTH, HEIGHT = range(8)
PAIR_COLUMNS = 8
PER_IMAGE = 8  # steps of ORDER from one image to the next
OF_ALT, OF_FIGCAPTION = 0, 1  # TEXT

_NO_TEXT, _NO_ADDRESS = 0, -3
_STATE, _BEHIND, _TEXT = FIRST, FIRST + 1, FIRST + 2  # of a figure: its text is from a place in the arena to a stop
_BARE, _PLAIN, _RARE = range(3)  # _STATE: no text, one that was written, one that is not decided here

_MAX_SIDE = 100_000
_SETS = (FIRST + 4, FIRST + 12, FIRST + 14)  # srcset, data-srcset, data-lazy-srcset
_SINGLE = (FIRST + 6, FIRST + 8, FIRST + 10, FIRST + 2)  # data-src, data-original, data-lazy-src, src
_WIDTH, _HEIGHT = FIRST + 16, FIRST + 18


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
        if start < end and not is_data(d, start, end):
            return start, end
    return NONE, 0


@compiled
def _pairs(
    d: Bytes, image: Table, utf8: bool, folder: Bytes, origin: int, arena: Bytes, rows: Table, caption: int, stop: int,
    room: int,
) -> int:  # fmt: skip
    """Writes the pairs of an image in one or two rows, from the URL of the first on: how many, or why there are none.

    The reason is _NO_TEXT, _NO_ADDRESS or UNSURE. A caption stands in the arena already, from a place to a stop.
    """
    at = rows[0, URL]
    start, end = _source(d, image)
    if start == UNSURE:
        return UNSURE
    # The text first, behind where an address can end: most images have none, or one that is plain.
    if start == NONE:
        text = write_text(d, image[ALT], image[ALT + 1], utf8, arena, at)
        if text < 0 or image[TO] >= 0:
            return UNSURE
        return _NO_TEXT if text == at and stop == caption else _NO_ADDRESS
    middle = write_address(d, start, end, folder, origin, arena, at)
    if middle < 0:
        text = write_text(d, image[ALT], image[ALT + 1], utf8, arena, at)
        return _NO_TEXT if text == at and stop == caption else UNSURE
    alt = write_text(d, image[ALT], image[ALT + 1], utf8, arena, middle)
    width = _pixels(d, image[_WIDTH], image[_WIDTH + 1])
    height = _pixels(d, image[_HEIGHT], image[_HEIGHT + 1])
    if alt < 0 or width < 0 or height < 0:
        return UNSURE
    count = 0
    if alt > middle:
        rows[0, CAPTION], rows[0, STOP], rows[0, TEXT] = middle, alt, OF_ALT
        count = 1
    if stop > caption and not _same(arena, middle, alt, caption, stop):
        if stop - caption + middle - at > room:
            return UNSURE
        row = rows[count]
        row[URL], row[CAPTION], row[TEXT] = (alt, alt + middle - at, OF_FIGCAPTION) if count else (at, middle, 1)
        row[STOP] = row[CAPTION] + stop - caption
        for k in range(row[CAPTION] - row[URL]):
            arena[row[URL] + k] = arena[at + k]
        for k in range(stop - caption):
            arena[row[CAPTION] + k] = arena[caption + k]
        count += 1
    for k in range(count):
        rows[k, WIDTH], rows[k, HEIGHT] = width, height
    return count if count else _NO_TEXT


@compiled
def _same(arena: Bytes, i: int, end: int, k: int, stop: int) -> bool:
    if end - i != stop - k:
        return False
    for step in range(end - i):  # noqa: SIM110 any() is not compiled
        if arena[i + step] != arena[k + step]:
            return False
    return True


@compiled
def _write_captions(d: Bytes, found: Table, utf8: bool, arena: Bytes, at: int) -> int:
    """Writes the first text of each figure, and notes at the figure where it is; behind them all."""
    for k in range(found.shape[0]):
        if found[k, KIND] == FIGURE:
            found[k, _STATE] = _BARE
        elif found[k, KIND] == FIGCAPTION and found[found[k, UP], _STATE] == _BARE:
            figure = found[found[k, UP]]
            stop = write_caption(d, found[k, END], found[k, TO], utf8, arena, at)
            if stop < 0:
                figure[_STATE] = _RARE
            elif stop > at:
                figure[_STATE], figure[_BEHIND] = _PLAIN, found[k, TO]
                figure[_TEXT], figure[_TEXT + 1] = at, stop
                at = stop
    return at


@compiled
def write_pairs(
    d: Bytes, found: Table, utf8: bool, folder: Bytes, origin: int, arena: Bytes, at: int, room: int, pairs: Table,
    page: int, counts: Table,
) -> tuple[int, int]:  # fmt: skip
    """Writes a page's plain pairs; how many, and where the arena goes on. What is found of other images stays.

    From `at` on, the arena has space for the page, for `folder` and 16 bytes more for each row of what was found, and
    `room` besides. `pairs` has two rows for each. `counts` gets the images, those without text, those without an
    address, and those that are not decided here; the KIND of the others becomes -1.
    """
    counts[:] = 0
    rows = 0
    at = _write_captions(d, found, utf8, arena, at)
    for k in range(found.shape[0]):
        image = found[k]
        if image[KIND] != IMAGE:
            continue
        counts[0] += 1
        caption = stop = 0
        if image[UP] >= 0:
            figure = found[image[UP]]
            if figure[_STATE] == _RARE:
                counts[3] += 1
                continue
            # A figure that is never closed ends with its caption.
            if figure[_STATE] == _PLAIN and (figure[TO] == 1 or image[START] <= figure[_BEHIND]):
                caption, stop = figure[_TEXT], figure[_TEXT + 1]
        if image[ALT + 1] <= image[ALT] and stop == caption:
            image[KIND] = -1
            counts[1] += 1
            continue
        pairs[rows, URL] = at
        gives = _pairs(d, image, utf8, folder, origin, arena, pairs[rows:], caption, stop, room)
        if gives == UNSURE:
            counts[3] += 1
            continue
        image[KIND] = -1
        counts[1] += gives == _NO_TEXT
        counts[2] += gives == _NO_ADDRESS
        for step in range(max(gives, 0)):
            pairs[rows, PAGE], pairs[rows, ORDER] = page, (k + 1) * PER_IMAGE + step
            at = pairs[rows, STOP]
            room -= at - pairs[rows, URL] if pairs[rows, TEXT] == OF_FIGCAPTION else 0
            rows += 1
    return rows, at
