"""Groups of reasons that differ in their numbers only, with the range of each number."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PATTERNS = 200
"""Groups that are told apart for one filter; the reasons of any further ones are counted together."""
OTHER = "other reasons"
SLOTS = 6
"""Numbers of a reason whose range is kept; those further on show as …"""
_SLOT = "\ufffc"
_MARK = "\x01"
_NUMBER = r"-?\d+(?:\.\d+)?"


@dataclass
class Group:
    """Reasons of one pattern: how many, and the smallest and largest of their first numbers (SLOTS,)."""

    count: int = 0
    low: np.ndarray = field(default_factory=lambda: np.full(SLOTS, np.inf))
    high: np.ndarray = field(default_factory=lambda: np.full(SLOTS, -np.inf))


@dataclass
class Groups:
    """The groups of one filter, by pattern: the reason with its numbers and quoted text taken out."""

    found: dict[str, Group] = field(default_factory=dict)

    def add(self, reasons: pa.Array) -> tuple[np.ndarray, list[str]]:
        """Count some reasons. Returns each one's pattern as a number (n,), and the patterns by number."""
        plain = pc.replace_substring(reasons.fill_null("no reason given"), _MARK, "")
        plain = pc.replace_substring_regex(plain, r"(?s)(^| )'.*'", r"\1'…'")
        patterns = pc.replace_substring_regex(plain, _NUMBER, _SLOT).dictionary_encode()
        codes = patterns.indices.to_numpy()
        names = patterns.dictionary.to_pylist()
        low, high = _ranges(plain, codes, len(names))
        counts = np.bincount(codes, minlength=len(names))
        for place, name in enumerate(names):
            if name not in self.found and len(self.found) >= PATTERNS:
                names[place] = OTHER
            group = self.found.setdefault(names[place], Group())
            group.count += int(counts[place])
            group.low, group.high = np.minimum(group.low, low[place]), np.maximum(group.high, high[place])
        return codes, names

    def ranked(self) -> list[str]:
        """The patterns, the most frequent first."""
        return sorted(self.found, key=lambda pattern: (-self.found[pattern].count, pattern))

    def top(self) -> list[tuple[str, int]]:
        """(text, count) of each group, the most frequent first; a number that varies shows as its range."""
        return [(_text(pattern, self.found[pattern]), self.found[pattern].count) for pattern in self.ranked()]


def _ranges(plain: pa.Array, codes: np.ndarray, patterns: int) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest of each number, for reasons (n,) of numbered patterns: two arrays (patterns, SLOTS)."""
    marked = pc.replace_substring_regex(plain, f"({_NUMBER})", rf"{_MARK}\1{_MARK}")
    pieces = pc.split_pattern(marked, _MARK)  # text, number, text, number, ..., text
    lengths = pc.list_value_length(pieces).to_numpy()
    place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    wanted = (place % 2 == 1) & (place < 2 * SLOTS)
    numbers = pieces.flatten().filter(pa.array(wanted)).cast(pa.float64()).to_numpy()
    cells = np.repeat(codes, lengths)[wanted] * SLOTS + place[wanted] // 2
    low, high = np.full(patterns * SLOTS, np.inf), np.full(patterns * SLOTS, -np.inf)
    np.minimum.at(low, cells, numbers)
    np.maximum.at(high, cells, numbers)
    return low.reshape(-1, SLOTS), high.reshape(-1, SLOTS)


def _text(pattern: str, group: Group) -> str:
    for low, high in zip(group.low, group.high, strict=True):
        ends = f"{low:.10g}" if low == high else f"{low:.10g}–{high:.10g}"
        pattern = pattern.replace(_SLOT, ends, 1)
    return pattern.replace(_SLOT, "…")
