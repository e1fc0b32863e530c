"""The tokenizer of the HTML standard, as far as finding tags goes: compiled, and on bytes.

https://html.spec.whatwg.org/multipage/parsing.html#tokenization. In every encoding that browsers know, but for UTF-16
and ISO-2022-JP, which must be decoded before, the bytes of < > = " ' / and white space are only these characters.
Memory is not checked by the compiled code, so every index is compared with the end of its array before it is used;
the tests run the same functions uncompiled, where a wrong one raises.
"""

from __future__ import annotations

import numpy as np

from curate.acquire.compiled import Bytes, compiled

U = np.uint64  # of an index: one that can be below zero costs a fifth more time


def key_of(name: str) -> int:
    """Five bits a letter: exact for names of up to 12 letters."""
    key = 0
    for letter in name:
        key = key << 5 | (ord(letter) & 31)
    return key


def _bytes() -> np.ndarray:
    """By byte: 1 in a name, 2 between attributes, 4 white space, 8 in a value without quotes."""
    table = np.full(256, 1 | 8, np.uint8)
    table[list(b" \t\n\r\f")] = 2 | 4
    table[ord("/")] = 2 | 8
    table[ord("=")] = 8
    table[ord(">")] = 0
    return table


SCRIPT = key_of("script")
_BYTE = _bytes()


@compiled
def is_space(c: int) -> bool:
    return c <= 32 and (c == 32 or c == 10 or c == 9 or c == 13 or c == 12)


@compiled
def is_letter(c: int) -> bool:
    return 97 <= c | 32 <= 122


@compiled
def name_at(d: Bytes, i: int, n: int) -> tuple[int, int]:
    """The key of the name that begins at a place, 0 for one of no interest, and where it ends."""
    key, first = 0, i
    while i < n and d[U(i)] != 62 and d[U(i)] != 47 and not is_space(d[U(i)]):
        key = (key << 5) | (int(d[U(i)]) & 31) if is_letter(d[U(i)]) and key >= 0 else -1
        i += 1
    return (key if key > 0 and i - first <= 12 else 0), i


@compiled
def next_attribute(d: Bytes, i: int, n: int) -> tuple[int, int, int, int, int]:
    """The attribute after a place in a tag: where to go on, and where its name and its value start and end.

    The name starts at -1 where the tag ends (going on behind its >), and the first is -1 where the page ends before.
    """
    while i < n and (d[U(i)] == 47 or is_space(d[U(i)])):
        i += 1
    if i >= n:
        return -1, -1, -1, -1, -1
    if d[U(i)] == 62:
        return i + 1, -1, -1, -1, -1
    name = i
    i += 1
    while i < n and d[U(i)] != 61 and d[U(i)] != 62 and d[U(i)] != 47 and not is_space(d[U(i)]):
        i += 1
    end = i
    while i < n and is_space(d[U(i)]):
        i += 1
    if i >= n or d[U(i)] != 61:
        return i, name, end, end, end
    i += 1
    while i < n and is_space(d[U(i)]):
        i += 1
    if i >= n:
        return -1, -1, -1, -1, -1
    if d[U(i)] == 34 or d[U(i)] == 39:
        quote = d[U(i)]
        i += 1
        value = i
        while i < n and d[U(i)] != quote:
            i += 1
        if i >= n:
            return -1, -1, -1, -1, -1
        return i + 1, name, end, value, i
    value = i
    while i < n and d[U(i)] != 62 and not is_space(d[U(i)]):
        i += 1
    return i, name, end, value, i


@compiled
def through(d: Bytes, i: int, n: int) -> int:
    """Behind the tag in whose name or attributes a place is; -1 where the page ends before.

    The way of `next_attribute`, without what that notes: most of the time goes here.
    """
    while i < n and _BYTE[d[U(i)]] & 1:  # the rest of a name
        i += 1
    while True:
        while i < n and _BYTE[d[U(i)]] & 2:  # between attributes
            i += 1
        if i >= n:
            return -1
        if d[U(i)] == 62:
            return i + 1
        i += 1
        while i < n and _BYTE[d[U(i)]] & 1:
            i += 1
        while i < n and _BYTE[d[U(i)]] & 4:
            i += 1
        if i < n and d[U(i)] == 61:
            i += 1
            while i < n and _BYTE[d[U(i)]] & 4:
                i += 1
            if i >= n:
                return -1
            quote = d[U(i)]
            if quote == 34 or quote == 39:
                i += 1
                while i < n and d[U(i)] != quote:
                    i += 1
                if i >= n:
                    return -1
                i += 1
            else:
                while i < n and _BYTE[d[U(i)]] & 8:
                    i += 1


@compiled
def equal(d: Bytes, start: int, end: int, word: Bytes) -> bool:
    """Whether a part of the page is a word, which is in lower case."""
    if end - start != word.size:
        return False
    for k in range(word.size):
        c = d[start + k]
        if (c | 32 if 65 <= c <= 90 else c) != word[k]:
            return False
    return True


@compiled
def holds(d: Bytes, start: int, end: int, word: Bytes) -> bool:
    for i in range(start, end - word.size + 1):  # noqa: SIM110 any() is not compiled
        if d[U(i)] | 32 == word[0] and equal(d, i, i + word.size, word):
            return True
    return False


@compiled
def not_markup(d: Bytes, i: int, n: int) -> int:
    """Behind the comment, doctype or the like whose < is at a place."""
    if i + 3 < n and d[i + 1] == 33 and d[i + 2] == 45 and d[i + 3] == 45:
        if i + 4 < n and d[i + 4] == 62:
            return i + 5
        if i + 5 < n and d[i + 4] == 45 and d[i + 5] == 62:
            return i + 6
        i += 4
        first = i
        while i < n:
            if d[U(i)] == 62 and i >= first + 2 and d[i - 1] == 45 and d[i - 2] == 45:
                return i + 1
            if d[U(i)] == 62 and i >= first + 3 and d[i - 1] == 33 and d[i - 2] == 45 and d[i - 3] == 45:
                return i + 1
            i += 1
        return n
    while i < n and d[U(i)] != 62:
        i += 1
    return min(i + 1, n)


@compiled
def raw_end(d: Bytes, i: int, n: int, key: int) -> int:
    """Where the end tag of raw text that begins at a place is; n if there is none."""
    start, escaped, twice = i, False, False
    while i < n:
        if d[U(i)] == 62 and escaped and i - start >= 2 and d[i - 1] == 45 and d[i - 2] == 45:
            escaped = twice = False
        elif d[U(i)] == 60 and i + 1 < n:
            if d[i + 1] == 47:
                name, end = name_at(d, i + 2, n)
                if name == key and end < n:
                    if not twice:
                        return i
                    twice = False
            elif key == SCRIPT and d[i + 1] == 33:
                if i + 3 < n and d[i + 2] == 45 and d[i + 3] == 45:
                    escaped, start = True, i + 2
            elif escaped and not twice and is_letter(d[i + 1]):
                name, end = name_at(d, i + 1, n)
                twice = name == SCRIPT and end < n
        i += 1
    return n
