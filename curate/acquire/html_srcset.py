"""The largest candidate of a plain srcset: what `html_urls.largest_candidate` gives, or nothing. Compiled."""

from __future__ import annotations

from curate.acquire.compiled import Bytes, compiled
from curate.acquire.html_addresses import UNSURE, is_data, reference_at
from curate.acquire.html_tokens import is_space
from curate.acquire.html_urls import MAX_URL

NONE = -2
_DIGITS, _PLACES = 7, 4  # of a size, before and behind its point
_ONE = 10**_PLACES


@compiled
def _is_plain(d: Bytes, i: int, end: int) -> bool:
    """Whether bytes are ASCII without a rare space or a reference that could be a space or comma."""
    while i < end:
        c, size = int(d[i]), 1
        if c == 38:
            c, size = reference_at(d, i, end)
        if c < 0 or c >= 128 or (c < 32 and not is_space(c)):
            return False
        i += size
    return True


@compiled
def _size(d: Bytes, i: int, end: int) -> int:
    """The size that a word such as 320w or 1.5x names, in ten thousandths; -1 for another word."""
    value, first = 0, i
    while i < end and 48 <= d[i] <= 57:
        value, i = value * 10 + int(d[i]) - 48, i + 1
        if i - first > _DIGITS:
            return -1
    if i == first:
        return -1
    places, first = _PLACES, i + 1
    if i < end and d[i] == 46:
        i += 1
        while i < end and 48 <= d[i] <= 57:
            value, i, places = value * 10 + int(d[i]) - 48, i + 1, places - 1
            if places < 0:
                return -1
        if i == first:
            return -1
    for _ in range(places):
        value *= 10
    return value if i + 1 == end and (d[i] == 119 or d[i] == 120) else -1


@compiled
def _sizes(d: Bytes, i: int, end: int) -> tuple[int, int]:
    """The width and density that some words name, the last of each."""
    width, density = 0, _ONE
    while i < end:
        word = i
        while i < end and not is_space(d[i]):
            i += 1
        size = _size(d, word, i)
        if size >= 0 and d[i - 1] == 119:
            width = size
        elif size >= 0:
            density = size
        i += 1
    return width, density


@compiled
def largest_in(d: Bytes, i: int, end: int) -> tuple[int, int]:
    """Where the address of the largest candidate of a srcset starts and ends; it starts at UNSURE, or NONE."""
    if end - i > 16 * MAX_URL or not _is_plain(d, i, end):
        return UNSURE, 0
    best, best_end, best_width, best_density = NONE, 0, -1, -1
    while True:
        while i < end and (is_space(d[i]) or d[i] == 44):
            i += 1
        if i >= end:
            return best, best_end
        address = i
        while i < end and not is_space(d[i]):
            i += 1
        stop, words = i, i
        if d[i - 1] == 44:
            while d[stop - 1] == 44:
                stop -= 1
        else:
            while i < end and d[i] != 44:
                i += 1
        width, density = _sizes(d, words, i)
        larger = width > best_width or (width == best_width and density > best_density)
        if larger and not is_data(d, address, stop):
            best, best_end, best_width, best_density = address, stop, width, density
