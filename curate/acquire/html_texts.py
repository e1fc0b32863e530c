"""The text of attributes and captions, where it is as plain as most: compiled. The rest is left to `html_text`.

What is written here is what `html_text.attribute_text` and `html_text.fold` would give, for captions what
`html_text.Decoder.text` would, or nothing at all: a reference, a space or a tag of a rare kind, and bytes that are no
UTF-8, are not decided here.
"""

from __future__ import annotations

import numpy as np

from curate.acquire.compiled import Bytes, compiled
from curate.acquire.html_addresses import UNSURE, reference_at
from curate.acquire.html_text import INLINE, MAX_CAPTION
from curate.acquire.html_tokens import is_letter, is_space, key_of, name_at

_INLINE = np.array(sorted(map(key_of, INLINE)))
_NO_TEXT = np.array([key_of(name) for name in ("script", "style", "template")])  # what is in them is none


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
    return _write(d, i, end, utf8, arena, at, False)


@compiled
def write_caption(d: Bytes, i: int, end: int, utf8: bool, arena: Bytes, at: int) -> int:
    """Writes the text of a piece of markup, white space folded; behind it, or UNSURE."""
    return _write(d, i, end, utf8, arena, at, True)


@compiled
def _write(d: Bytes, i: int, end: int, utf8: bool, arena: Bytes, at: int, markup: bool) -> int:
    first, gap = at, False
    if end - i > MAX_CAPTION:
        return UNSURE
    while i < end:
        c, size = int(d[i]), 1
        if c == 38:
            c, size = reference_at(d, i, end)
            if c < 0 or (markup and size == 1 and i + 1 < end and (is_letter(d[i + 1]) or d[i + 1] == 60)):
                return UNSURE  # a tag may stand in the middle of a reference
        elif c == 60 and markup:
            c, size = _tag(d, i, end)
            if c < 0:
                return UNSURE
            if c == 0:
                i += size
                continue
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
def _tag(d: Bytes, i: int, end: int) -> tuple[int, int]:
    """What the tag at a place is in a text: 0 for nothing, a space, or UNSURE; and how many bytes it takes."""
    first = i
    i += 2 if i + 1 < end and d[i + 1] == 47 else 1
    start = i
    while i < end and (is_letter(d[i]) or (i > start and 48 <= d[i] <= 57)):
        i += 1
    if i >= end or i == start or not (d[i] == 62 or d[i] == 47 or is_space(d[i])):
        return UNSURE, 1
    key, _ = name_at(d, start, end)
    for other in _NO_TEXT:
        if key == other:
            return UNSURE, 1
    while i < end and d[i] != 62:
        if d[i] == 61:
            i += 1
            if i >= end or d[i] != 34:
                return UNSURE, 1
            i += 1
            while i < end and d[i] != 34:
                i += 1
        elif d[i] == 34 or d[i] == 39 or d[i] == 60:
            return UNSURE, 1
        i += 1
    if i >= end:
        return UNSURE, 1
    for other in _INLINE:
        if key == other:
            return 0, i + 1 - first
    return 32, i + 1 - first
