"""The little of JSON (RFC 8259) that finding some members in a long record takes: compiled, and on bytes.

What is passed over is not checked to be valid.
"""

from __future__ import annotations

import numpy as np

from curate.acquire.compiled import Bytes, compiled
from curate.acquire.html_tokens import U

_AMP = np.frombuffer(b"&amp;", np.uint8)
_ESCAPES = np.full(256, -1, np.int64)
for _name, _meant in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPES[_name] = _meant
ESCAPED = _AMP.size  # bytes for each that a string may grow to


@compiled
def past_space(d: Bytes, i: int, n: int) -> int:
    while i < n and (d[U(i)] == 32 or d[U(i)] == 10 or d[U(i)] == 13 or d[U(i)] == 9):
        i += 1
    return i


@compiled
def string_end(d: Bytes, i: int, n: int) -> int:
    """The quote that ends the string whose first byte is at a place; n if there is none."""
    while i < n and d[U(i)] != 34:
        i += 2 if d[U(i)] == 92 else 1
    return min(i, n)


@compiled
def value_end(d: Bytes, i: int, n: int) -> int:
    """Behind the value at a place; n if it does not end."""
    depth = 0
    while i < n:
        c = d[U(i)]
        if c == 34:
            i = string_end(d, i + 1, n)
        elif c == 123 or c == 91:
            depth += 1
        elif c == 125 or c == 93:
            if depth == 0:
                return i  # of a number or word
            depth -= 1
        elif depth == 0 and c == 44:
            return i
        i += 1
        if depth == 0 and (c == 34 or c == 125 or c == 93):
            return min(i, n)
    return n


@compiled
def is_word(d: Bytes, i: int, end: int, word: Bytes) -> bool:
    if end - i != word.size:
        return False
    for k in range(word.size):  # noqa: SIM110 any() is not compiled
        if d[i + k] != word[k]:
            return False
    return True


@compiled
def member_at(d: Bytes, i: int, n: int, first: bool) -> tuple[int, int, int]:
    """The next member of an object: where its name starts and ends, and where its value starts.

    The name starts at -1 behind the last member, and then the third place is behind the object; at -2 if it is broken,
    or has an escape in its name.
    """
    i = past_space(d, i, n)
    if i < n and d[i] == 125:
        return -1, 0, i + 1
    if not first:
        if i >= n or d[i] != 44:
            return -2, 0, n
        i = past_space(d, i + 1, n)
    if i >= n or d[i] != 34:
        return -2, 0, n
    name = i + 1
    end = string_end(d, name, n)
    for k in range(name, end):
        if d[k] == 92:
            return -2, 0, n
    i = past_space(d, end + 1, n)
    if i >= n or d[i] != 58:
        return -2, 0, n
    i = past_space(d, i + 1, n)
    return (name, end, i) if i < n else (-2, 0, n)


@compiled
def _hex(d: Bytes, i: int, end: int) -> int:
    """Four hexadecimal digits, -1 for others."""
    value = 0
    if i + 4 > end:
        return -1
    for k in range(i, i + 4):
        c = d[k]
        digit = c - 48 if 48 <= c <= 57 else (c | 32) - 87 if 97 <= c | 32 <= 102 else 99
        if digit > 15:
            return -1
        value = value << 4 | int(digit)
    return value


@compiled
def _code(d: Bytes, i: int, end: int) -> tuple[int, int]:
    r"""The character of the \u at a place and how many bytes it takes; -1 for half of a pair."""
    high = _hex(d, i + 2, end)
    if high < 0xD800 or high > 0xDFFF:
        return high, 6
    if high > 0xDBFF or i + 8 > end or d[i + 6] != 92 or d[i + 7] != 117:
        return -1, 6
    low = _hex(d, i + 8, end)
    return (0x10000 + ((high - 0xD800) << 10) + low - 0xDC00 if 0xDC00 <= low <= 0xDFFF else -1), 12


@compiled
def write_string(d: Bytes, i: int, end: int, escape: bool, out: Bytes, at: int) -> int:
    """Writes a string without its escapes, and with & as a reference where asked for; behind it, -1 if it is broken."""
    while i < end:
        c, size = int(d[U(i)]), 1
        if c == 92:
            if i + 1 >= end:
                return -1
            c, size = int(d[i + 1]), 2
            if c == 117:
                c, size = _code(d, i, end)
            else:
                c = _ESCAPES[c]
            if c < 0:
                return -1
            if c >= 128:
                at, i = _utf8(c, out, at), i + size
                continue
        i += size
        if c == 38 and escape:
            for k in range(_AMP.size):
                out[at + k] = _AMP[k]
            at += _AMP.size
        else:
            out[at] = c
            at += 1
    return at


@compiled
def _utf8(c: int, out: Bytes, at: int) -> int:
    if c < 0x800:
        out[at] = 0xC0 | c >> 6
    elif c < 0x10000:
        out[at], out[at + 1] = 0xE0 | c >> 12, 0x80 | (c >> 6 & 63)
        at += 1
    else:
        out[at], out[at + 1], out[at + 2] = 0xF0 | c >> 18, 0x80 | (c >> 12 & 63), 0x80 | (c >> 6 & 63)
        at += 2
    out[at + 1] = 0x80 | (c & 63)
    return at + 2
