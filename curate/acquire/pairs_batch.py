"""Pairs that wait to be written, as columns of bytes, named by their digests and compared without an object each.

`digests` is BLAKE2b with 16 bytes (RFC 7693), as hashlib has it, compiled because a call for each pair costs more than
reading its image's tag.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from curate.acquire.compiled import Bytes, Table, compiled
from curate.acquire.html_plain import CAPTION, HEIGHT, ORDER, PAGE, PAIR_COLUMNS, PER_IMAGE, STOP, TEXT, URL, WIDTH

if TYPE_CHECKING:
    from curate.acquire.pairs import Pair

TEXTS = ("alt", "figcaption", "og_alt", "og_title", "og_description", "title")
_PLACE = {name: place for place, name in enumerate(TEXTS)}
_IV_DIGITS = """
6a09e667f3bcc908 bb67ae8584caa73b 3c6ef372fe94f82b a54ff53a5f1d36f1 510e527fade682d1 9b05688c2b3e6c1f 1f83d9abfb41bd6b
5be0cd19137e2179
"""
_IV = np.array([int(word, 16) for word in _IV_DIGITS.split()], np.uint64)
_SIGMA_ROWS = """
0123456789abcdef ea489fd61c02b753 b8c052fdae367194 7931dcbe265a40f8 905724afe1bc683d 2c6a0b834d75fe19 c51fed4a0763928b
db7ec13950f4862a 6fe9b308c2d714a5 a2847615fb9e3cd0 0123456789abcdef ea489fd61c02b753
"""
_SIGMA = np.array([[int(digit, 16) for digit in row] for row in _SIGMA_ROWS.split()])
_MIX_ROWS = "048c 159d 26ae 37bf 05af 16bc 278d 349e"
_MIX = np.array([[int(digit, 16) for digit in row] for row in _MIX_ROWS.split()])
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


@compiled
def _turn(x: np.uint64, by: int) -> np.uint64:
    return (x >> np.uint64(by)) | (x << np.uint64(64 - by))


@compiled
def _compress(h: Table, m: Table, v: Table, count: int, last: bool) -> None:
    for k in range(8):
        v[k], v[k + 8] = h[k], _IV[k]
    v[12] ^= np.uint64(count)
    if last:
        v[14] = ~v[14]
    for r in range(12):
        for k in range(8):
            a, b, c, d = v[_MIX[k, 0]], v[_MIX[k, 1]], v[_MIX[k, 2]], v[_MIX[k, 3]]
            a = a + b + m[_SIGMA[r, 2 * k]]
            d = _turn(d ^ a, 32)
            c = c + d
            b = _turn(b ^ c, 24)
            a = a + b + m[_SIGMA[r, 2 * k + 1]]
            d = _turn(d ^ a, 16)
            c = c + d
            b = _turn(b ^ c, 63)
            v[_MIX[k, 0]], v[_MIX[k, 1]], v[_MIX[k, 2]], v[_MIX[k, 3]] = a, b, c, d
    for k in range(8):
        h[k] ^= v[k] ^ v[k + 8]


@compiled
def digests(arena: Bytes, rows: Table, out: Table) -> None:
    """The 128-bit BLAKE2b of `LENGTH:` + address + caption of each row; `out` is uint64 (rows, 2)."""
    h, m, v = np.empty(8, np.uint64), np.empty(16, np.uint64), np.empty(16, np.uint64)
    head = np.empty(24, np.uint8)
    for r in range(rows.shape[0]):
        length, start = rows[r, CAPTION] - rows[r, URL], rows[r, URL]
        place = head.size - 1
        head[place] = 58
        while length > 0 or place == head.size - 1:
            place -= 1
            head[place] = 48 + length % 10
            length //= 10
        size = head.size - place
        total = size + rows[r, STOP] - start
        h[:] = _IV
        h[0] ^= np.uint64(0x01010000 ^ 16)
        done = 0
        while True:
            m[:] = 0
            block = min(128, total - done)
            for k in range(block):
                byte = head[place + done + k] if done + k < size else arena[start + done + k - size]
                m[k >> 3] |= np.uint64(byte) << np.uint64(8 * (k & 7))
            done += block
            _compress(h, m, v, done, done == total)
            if done == total:
                break
        out[r, 0], out[r, 1] = h[0], h[1]


@compiled
def first_of_page(rows: Table, names: Table, keep: Table) -> int:
    """Marks the first of the pairs with equal names on each page; how many images came again."""
    size = 16
    while size < 2 * rows.shape[0]:
        size *= 2
    slots = np.full(size, -1, np.int64)
    again = 0
    for r in range(rows.shape[0]):
        slot = np.int64((names[r, 0] ^ np.uint64(rows[r, PAGE] * 0x9E3779B1)) & np.uint64(size - 1))
        keep[r] = True
        while slots[slot] >= 0:
            other = slots[slot]
            if names[other, 0] == names[r, 0] and names[other, 1] == names[r, 1] and rows[other, PAGE] == rows[r, PAGE]:
                keep[r] = False
                again += rows[r, ORDER] >= PER_IMAGE
                break
            slot = (slot + 1) & (size - 1)
        if keep[r]:
            slots[slot] = r
    return again


@compiled
def gather(arena: Bytes, starts: Table, offsets: Table, out: Bytes) -> None:
    for r in range(starts.size):
        start, first = starts[r], offsets[r]
        for k in range(offsets[r + 1] - first):
            out[first + k] = arena[start + k]


class PairBatch:
    """Pairs of whole pages, in the order of ORDER on each. Grows as needed; `clear` keeps what it has grown to."""

    def __init__(self) -> None:
        self.arena = np.empty(1 << 20, np.uint8)
        self.rows = np.empty((4096, PAIR_COLUMNS), np.int64)
        self.clear()

    def clear(self) -> None:
        self.count = self.used = 0
        self.pages: list[tuple[str, str | None, str | None]] = []  # address, language, licence

    def reserve(self, rows: int, space: int) -> None:
        """Makes room for so many more rows and bytes."""
        if self.count + rows > len(self.rows):
            self.rows = np.concatenate(
                [self.rows[: self.count], np.empty((self.count + 2 * rows, PAIR_COLUMNS), np.int64)]
            )
        if self.used + space > len(self.arena):
            self.arena = np.concatenate([self.arena[: self.used], np.empty(self.used + 2 * space, np.uint8)])

    def page(self, address: str, language: str | None, licence: str | None) -> int:
        """Begins a page; its number."""
        self.pages.append((address, language, licence))
        return len(self.pages) - 1

    def add(self, page: int, order: int, pair: tuple[str, str, str, int | None, int | None]) -> None:
        """One pair: its address, caption, caption_source, width and height."""
        url, caption = pair[0].encode(), pair[1].encode("utf-8", "replace")
        middle, stop = self.used + len(url), self.used + len(url) + len(caption)
        self.reserve(1, len(url) + len(caption))
        self.arena[self.used : stop] = np.frombuffer(url + caption, np.uint8)
        self.rows[self.count] = (page, order, self.used, middle, stop, _PLACE[pair[2]], pair[3] or 0, pair[4] or 0)
        self.count, self.used = self.count + 1, stop

    def add_pairs(self, pairs: Iterable[Pair]) -> None:
        """Pairs of one page that were made one by one, each of which stands once."""
        page = -1
        for order, pair in enumerate(pairs):
            if page < 0:
                page = self.page(pair.page_url, pair.page_language, pair.page_licence)
            told = (pair.url, pair.caption, pair.caption_source, pair.width_attribute, pair.height_attribute)
            self.add(page, PER_IMAGE * (order + 1), told)

    def columns(self) -> tuple[dict[str, pa.Array], int]:
        """The columns of the pairs, each once on its page, and how many images came again on a page."""
        rows = self.rows[: self.count]
        rows = rows[np.argsort(rows[:, PAGE] << 32 | rows[:, ORDER], kind="stable")]
        names, keep = np.empty((len(rows), 2), np.uint64), np.empty(len(rows), bool)
        digests(self.arena, rows, names)
        again = first_of_page(rows, names, keep)
        if not keep.all():
            rows, names = rows[keep], names[keep]
        raw = names.astype("<u8", copy=False).view(np.uint8)
        digits = np.stack([_HEX[raw >> 4], _HEX[raw & 15]], axis=-1).reshape(-1)
        pages = pa.array(rows[:, PAGE])
        of_pages = [pa.array(column, pa.string()).take(pages) for column in zip(*self.pages, strict=True)]
        columns = {
            "uid": _strings(np.arange(len(rows) + 1) * 32, digits),
            "url": self._texts(rows[:, URL], rows[:, CAPTION]),
            "caption": self._texts(rows[:, CAPTION], rows[:, STOP]),
            "caption_source": pa.array(TEXTS).take(pa.array(rows[:, TEXT])),
            "page_url": of_pages[0],
            "page_language": of_pages[1],
            "page_licence": of_pages[2],
            "width_attribute": _pixels(rows[:, WIDTH]),
            "height_attribute": _pixels(rows[:, HEIGHT]),
        }
        return columns, again

    def _texts(self, starts: np.ndarray, ends: np.ndarray) -> pa.Array:
        offsets = np.concatenate([[0], np.cumsum(ends - starts)])
        out = np.empty(offsets[-1], np.uint8)
        gather(self.arena, np.ascontiguousarray(starts), offsets, out)
        return _strings(offsets, out)


def _strings(offsets: np.ndarray, data: np.ndarray) -> pa.Array:
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data))


def _pixels(values: np.ndarray) -> pa.Array:
    return pa.array(values.astype(np.int32), mask=values == 0)
