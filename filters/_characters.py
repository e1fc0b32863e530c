"""Texts as one line of code points, and what each code point is: text features work on a whole batch at once."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LETTER, WORD, SPACE, HIDDEN = 1, 2, 4, 8
"""What a code point is; `WORD` is a letter, a mark or a number, `SPACE` is white space, `HIDDEN` leaves no trace."""
_CLASSES = {
    LETTER: r"\pL",
    WORD: r"[\pL\pM\pN]",
    SPACE: r"[\pZ\t-\r\x1c-\x1f\x{85}]",  # what Python's str.split takes for white space
    # Zero-width joiners, soft hyphens, marks of direction; and what makes an emoji out of a sign.
    HIDDEN: r"[\p{Cf}\x{FE00}-\x{FE0F}\x{E0100}-\x{E01EF}\x{20E3}]",
}
_SURROGATES = (0xD800, 0xE000)


def text_array(texts: list[str | None]) -> pa.Array:
    """Texts as Arrow has them; halves of surrogate pairs, which no file can hold, become replacement characters."""
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        whole = [t and t.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") for t in texts]
        return pa.array(whole, pa.string())


def code_points(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The code points of all texts, uint8 if they are all ASCII, else uint32 (total,), and the bounds (n + 1,).

    A null counts as an empty text.
    """
    if texts.null_count:
        texts = texts.fill_null("")
    _, places, data = texts.buffers()
    width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    ends = np.frombuffer(places, width)[texts.offset :][: len(texts) + 1] if len(texts) else np.zeros(1, width)
    bounds = ends.astype(np.int64) - int(ends[0])
    units = np.frombuffer(data or b"", np.uint8)[int(ends[0]) : int(ends[-1])]
    if not len(units) or units.max() < 0x80:
        return units, bounds
    begins = np.append(0, np.cumsum((units & 0xC0) != 0x80))  # bytes that begin a code point
    return np.frombuffer(units.tobytes().decode().encode("utf-32-le"), np.uint32), begins[bounds]


def from_code_points(points: np.ndarray, bounds: np.ndarray) -> pa.Array:
    """Texts from code points: the way back from `code_points`."""
    if points.dtype == np.uint8:
        data, places = points.tobytes(), bounds
    else:
        data = points.tobytes().decode("utf-32-le").encode()
        size = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
        places = np.append(0, np.cumsum(size))[bounds]
    return pa.Array.from_buffers(
        pa.string(), len(bounds) - 1, [None, pa.py_buffer(places.astype(np.int32)), pa.py_buffer(data)]
    )


def classes(points: np.ndarray) -> np.ndarray:
    """What each code point is, a sum of the constants above: uint8, the shape of `points`."""
    if points.dtype == np.uint8:
        return np.frombuffer(points.tobytes().translate(_ascii_table()), np.uint8)
    return _table()[points]


@cache
def _ascii_table() -> bytes:
    return _classes_of(np.arange(0x80, dtype=np.uint32)).tobytes() + bytes(0x80)


@cache
def _table() -> np.ndarray:
    """Of every code point (0x110000,), by Arrow's Unicode and not by Python's: it goes with the lock."""
    low, high = _SURROGATES
    table = np.zeros(0x110000, np.uint8)
    real = np.r_[0:low, high : len(table)]
    table[real] = _classes_of(real.astype(np.uint32))
    return table


def _classes_of(points: np.ndarray) -> np.ndarray:
    characters = from_code_points(points, np.arange(len(points) + 1))
    found = np.zeros(len(points), np.uint8)
    for bit, pattern in _CLASSES.items():
        found |= pc.match_substring_regex(characters, pattern).to_numpy(zero_copy_only=False).astype(np.uint8) * bit
    return found


def per_text(flags: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """How many code points of each text have a flag: bool (total,) to int64 (n,)."""
    return np.diff(np.append(0, np.cumsum(flags))[bounds])
