"""What is remembered of images, and which of those new ones may be copies of, by the hashes of their views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa

from filters._alignment import PIXELS
from filters._columns import PLACES, Column, Keys, Near, Texts, Values
from filters._guesses import (
    EVEN_DISTANCE,
    FOLLOWERS,
    PART_DISTANCE,
    WINDOW_DISTANCE,
    Found,
    Hashes,
    best_guesses,
    equal_pairs,
    nearest_of,
    window_code,
)
from filters._memory import Past, Run
from filters._stars import Guesses, Links
from filters._views import EVEN_WINDOWS, FLAT, WINDOW_VIEWS

Stream = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]
"""Gives some images (m,) and something of each, uint64 (m, ...), in parts, as often as it is called."""
ROWS = 1 << 17
"""Images of a run when it is made: their tables are made in memory."""
_TABLE = 12  # windows of one table
WINDOW_TABLES: dict[str, range] = {
    "windows_even": range(EVEN_WINDOWS),
    **{
        f"windows_{first}": range(first, min(first + _TABLE, len(WINDOW_VIEWS)))
        for first in range(EVEN_WINDOWS, len(WINDOW_VIEWS), _TABLE)
    },
}


def guesses_after(hashes: Hashes, windows: Stream, past: Past) -> Guesses:
    """Guess who is a copy of whom of which one at least is new; new images are numbered behind those of the past."""
    first = past.rows
    found, known = _equals(past, "whole", hashes.whole[0], np.arange(len(hashes.leads)))
    hashes.leads &= ~known
    every = [found]
    for number, part in enumerate(hashes.parts):
        real = np.flatnonzero(part >= FLAT)
        found, known = _equals(past, f"part_{number}", part[real], real)
        hashes.part_leads[number][real[known]] = False
        every.append(found)
    every += [(left + first, right + first, code, bits) for left, right, code, bits in hashes.near(windows())]
    every += _wholes_and_parts(hashes, past)
    for asking, views in windows():
        every += _new_windows(hashes, asking[hashes.leads[asking]], views[hashes.leads[asking]], past)
    every += _old_windows(hashes, past)
    return best_guesses(every)


def _equals(past: Past, name: str, hashes: np.ndarray, images: np.ndarray) -> tuple[Found, np.ndarray]:
    """Pairs with equal hashes, of which one is new; and which of the new images' hashes (n,) are known already."""
    keys = np.unique(hashes)
    place, row = past.ends(name, keys, 1, FOLLOWERS)
    number = np.concatenate([row, past.rows + images])
    left, right, code, bits = equal_pairs(np.concatenate([keys[place], hashes]))
    left, right = number[left], number[right]
    new = np.flatnonzero(right >= past.rows)
    return (left[new], right[new], code[new], bits[new]), np.isin(hashes, keys[place])


def _wholes_and_parts(hashes: Hashes, past: Past) -> Iterator[Found]:
    new, whole, most = past.rows + hashes.asked, hashes.whole[0][hashes.asked], hashes.max_distance
    if most:
        for query, place, bits in past.near("turn_0", whole, most):
            yield place // PLACES, new[query], np.zeros(len(query), np.int16), bits
    for number, part in enumerate(hashes.parts):
        leads = np.flatnonzero(hashes.part_leads[number])
        for query, place, bits in past.near(f"part_near_{number}", part[leads], PART_DISTANCE):
            yield place // PLACES, past.rows + leads[query], np.zeros(len(query), np.int16), bits
    for turn, turned in zip(hashes.turns[1:], hashes.whole[1:], strict=True):
        for query, place, bits in past.near(f"turn_{turn}", whole, most):
            yield new[query], place // PLACES, np.full(len(query), turn, np.int16), bits
        for query, place, bits in past.near("turn_0", turned[hashes.asked], most):
            yield place // PLACES, new[query], np.full(len(query), turn, np.int16), bits


def _new_windows(hashes: Hashes, asking: np.ndarray, views: np.ndarray, past: Past) -> Iterator[Found]:
    """Windows (m, windows) of new images (m,) near old wholes, turned or not."""
    for begin, end, distance in ((0, EVEN_WINDOWS, EVEN_DISTANCE), (EVEN_WINDOWS, views.shape[1], WINDOW_DISTANCE)):
        image, window = np.nonzero(views[:, begin:end] >= FLAT)
        asked = views[image, window + begin]
        for turn in hashes.turns:
            for query, place, bits in past.near(f"turn_{turn}", asked, distance):
                code = window_code(window[query] + begin, np.full(len(query), turn, np.int16))
                yield nearest_of(past.rows + asking[image[query]], place // PLACES, code, bits)


def _old_windows(hashes: Hashes, past: Past) -> Iterator[Found]:
    """New wholes, turned or not, near windows of old images."""
    for turn, whole in zip(hashes.turns, hashes.whole, strict=True):
        for name, views in WINDOW_TABLES.items():
            distance = EVEN_DISTANCE if views.start == 0 else WINDOW_DISTANCE
            for query, place, bits in past.near(name, whole[hashes.asked], distance):
                code = window_code(place % PLACES, np.full(len(query), turn, np.int16))
                yield nearest_of(place // PLACES, past.rows + hashes.asked[query], code, bits)


def earlier_links(past: Past, rows: np.ndarray) -> tuple[np.ndarray, Links]:
    """Some earlier images and the survivors of those that are gone: their rows, ascending (n,), and their links."""
    if not len(rows):
        return rows, Links(rows, np.zeros(0, np.float32), np.zeros((0, 2, 3), np.float32))
    survivor = past.values("survivor", rows)
    rows = np.union1d(rows, survivor[survivor >= 0])
    survivor = past.values("survivor", rows)
    place = np.where(survivor >= 0, np.searchsorted(rows, survivor), -1)
    return rows, Links(place, np.zeros(len(rows), np.float32), past.values("warp", rows))


def image_runs(
    hashes: Hashes, windows: Stream, thumbnails: Stream, uids: pa.ChunkedArray, links: Links, first: int
) -> Iterator[Run]:
    """Remember new images (n,), best first, of which `links` says what was decided, numbered among all images."""
    for start in range(0, len(uids), ROWS):
        stop = min(start + ROWS, len(uids))
        columns = _tables(hashes, start, stop) | _window_tables(hashes, windows, start, stop)
        pixels = np.zeros((stop - start, PIXELS), np.uint8)
        for images, words in thumbnails():
            mine = (images >= start) & (images < stop)
            pixels[images[mine] - start] = words[mine].astype("<u8").view(np.uint8)
        columns |= {
            "uid": Texts.of(uids.slice(start, stop - start)), "thumbnail": Values([pixels]),
            "survivor": Values([links.survivor[start:stop]]), "warp": Values([links.warp[start:stop]]),
        }  # fmt: skip
        yield Run(first + start, stop - start, columns)


def _tables(hashes: Hashes, start: int, stop: int) -> dict[str, Column]:
    part_of = slice(start, stop)
    columns: dict[str, Column] = {"whole": Keys.of(hashes.whole[0][part_of])}
    asked = hashes.asked[(hashes.asked >= start) & (hashes.asked < stop)]
    for turn, whole in zip(hashes.turns, hashes.whole, strict=True):
        columns[f"turn_{turn}"] = Near.of(whole[asked], (asked - start) * PLACES, EVEN_DISTANCE)
    for number, (part, leads) in enumerate(zip(hashes.parts, hashes.part_leads, strict=True)):
        real, near = np.flatnonzero(part[part_of] >= FLAT), np.flatnonzero(leads[part_of])
        columns[f"part_{number}"] = Keys.of(part[part_of][real], real)
        columns[f"part_near_{number}"] = Near.of(part[part_of][near], near * PLACES, PART_DISTANCE)
    return columns


def _window_tables(hashes: Hashes, windows: Stream, start: int, stop: int) -> dict[str, Column]:
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in WINDOW_TABLES}
    for images, views in windows():
        mine = hashes.leads[images] & (images >= start) & (images < stop)
        own, seen = images[mine] - start, views[mine]
        for name, some in WINDOW_TABLES.items():
            image, window = np.nonzero(seen[:, some.start : some.stop] >= FLAT)
            window += some.start
            parts[name].append((seen[image, window], own[image] * PLACES + window))
    found: dict[str, Column] = {}
    for name, some in WINDOW_TABLES.items():
        none = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        near, place = (np.concatenate(column) for column in zip(none, *parts.pop(name), strict=True))
        found[name] = Near.of(near, place, EVEN_DISTANCE if some.start == 0 else WINDOW_DISTANCE)
    return found
