"""Image addresses as plain as most, made absolute: what `html_urls.absolute_url` gives, or nothing. Compiled."""

from __future__ import annotations

import numpy as np

from curate.acquire.compiled import Bytes, compiled
from curate.acquire.html_tokens import equal, is_space
from curate.acquire.html_urls import MAX_URL

UNSURE = -1


def _class_table() -> np.ndarray:
    """By byte: 1 for what stands in a clean path, 2 for % and 3 for /."""
    table = np.zeros(256, np.uint8)
    for letter in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~,:@=&+-":
        table[letter] = 1
    table[ord("%")], table[ord("/")] = 2, 3
    return table


_CLASS = _class_table()
_DATA = np.frombuffer(b"data:", np.uint8)
_REFERENCES = [b"&amp;", b"&quot;", b"&#39;", b"&#039;", b"&apos;", b"&lt;", b"&gt;"]
_REFERENCE = np.array([list(name.ljust(6, b"\0")) for name in _REFERENCES], np.uint8)
_REFERENCE_SIZE = np.array([len(name) for name in _REFERENCES])
_REFERENCE_MEANS = np.frombuffer(b"&\"'''<>", np.uint8)


@compiled
def reference_at(d: Bytes, i: int, end: int) -> tuple[int, int]:
    """What the & at a place stands for, -1 if that is not decided here, and how many bytes it takes."""
    for r in range(_REFERENCE_SIZE.size):
        size = _REFERENCE_SIZE[r]
        if i + size <= end:
            k = 1
            while k < size and d[i + k] == _REFERENCE[r, k]:
                k += 1
            if k == size:
                return _REFERENCE_MEANS[r], size
    if i + 1 < end and d[i + 1] == 35:
        return UNSURE, 1
    k = i + 1
    while k < end and (97 <= d[k] | 32 <= 122 or (k > i + 1 and 48 <= d[k] <= 57)):
        k += 1
    if k == i + 1 or (k < end and d[k] == 61):
        return 38, 1  # nothing of the kind, or the next parameter of a query
    return UNSURE, 1


@compiled
def is_data(d: Bytes, i: int, end: int) -> bool:
    """Whether an address holds its image itself."""
    return i + _DATA.size <= end and equal(d, i, i + _DATA.size, _DATA)


@compiled
def _hex(c: int) -> bool:
    return 48 <= c <= 57 or 65 <= c <= 70


@compiled
def _clean_rest(a: Bytes, i: int, end: int) -> bool:
    """Whether a path, and the query behind it, is one that normalising would not change."""
    if i >= end or a[i] != 47:
        return False
    if i + 1 == end:
        return True
    query = False
    while i < end:
        kind = _CLASS[a[i]]
        if kind == 2:
            if i + 2 >= end or not _hex(a[i + 1]) or not _hex(a[i + 2]):
                return False
            i += 2
        elif kind == 3:
            if not query and (i + 1 >= end or a[i + 1] == 47 or a[i + 1] == 46 or a[i + 1] == 63):
                return False
        elif kind == 0:
            if a[i] != 63 or query or i + 1 >= end:
                return False
            query = True
        i += 1
    return True


@compiled
def _host_end(a: Bytes, i: int, end: int) -> int:
    """Behind the host name that begins at a place, -1 if it is not of the usual kind."""
    label, dots, letters = i, 0, True
    while i < end and a[i] != 47:
        c = a[i]
        if c == 46:
            if i == label or i - label > 63 or a[i - 1] == 45:
                return -1
            dots, label, letters = dots + 1, i + 1, True
        elif 97 <= c <= 122:
            pass
        elif 48 <= c <= 57 or (c == 45 and i > label):
            letters = False
        else:
            return -1
        i += 1
    return i if dots > 0 and letters and 2 <= i - label <= 24 else -1


@compiled
def _scheme(a: Bytes, i: int, end: int) -> int:
    """Behind the http:// or https:// at a place, -1 if there is none."""
    if end - i < 8 or a[i] != 104 or a[i + 1] != 116 or a[i + 2] != 116 or a[i + 3] != 112:
        return -1
    i += 5 if a[i + 4] == 115 else 4
    return i + 3 if i + 2 < end and a[i] == 58 and a[i + 1] == 47 and a[i + 2] == 47 else -1


@compiled
def write_address(d: Bytes, i: int, end: int, folder: Bytes, origin: int, arena: Bytes, at: int) -> int:
    """Writes the absolute address of a reference; behind it, or UNSURE.

    `folder` is the page's own address up to its last slash if that is plain, else empty; its first `origin` bytes are
    the scheme and host.
    """
    while i < end and is_space(d[i]):
        i += 1
    while i < end and is_space(d[end - 1]):
        end -= 1
    if i >= end or end - i > MAX_URL // 2:
        return UNSURE
    whole = _scheme(d, i, end) >= 0
    copied = 0
    if not whole:
        if origin == 0:
            return UNSURE
        if d[i] != 47:
            copied = folder.size
        elif i + 1 < end and d[i + 1] == 47:
            copied = 6 if folder[4] == 115 else 5
        else:
            copied = origin
    for k in range(copied):
        arena[at + k] = folder[k]
    start, first = at, at + copied
    at = first
    while i < end:
        c, size = int(d[i]), 1
        if c == 38:
            c, size = reference_at(d, i, end)
        if c < 0 or c >= 128:
            return UNSURE
        arena[at] = c
        at, i = at + 1, i + size
    if copied == folder.size and copied > 0 and not whole and arena[first] != 47:
        k = first  # a colon in the first step would be a scheme's
        while k < at and arena[k] != 47 and arena[k] != 63:
            if arena[k] == 58:
                return UNSURE
            k += 1
        if arena[first] == 46 or arena[first] == 63:
            return UNSURE
        return at if _clean_rest(arena, first - 1, at) else UNSURE
    if copied == origin and not whole:
        return at if _clean_rest(arena, first, at) else UNSURE
    host = _scheme(arena, start, at)
    host = _host_end(arena, host, at) if host > 0 else -1
    return at if host > 0 and _clean_rest(arena, host, at) else UNSURE
