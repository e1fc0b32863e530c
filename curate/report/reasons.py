"""Groups of reasons that differ in their numbers only, with the range of each number."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

PATTERNS = 200
"""Groups that are told apart for one filter; the reasons of any further ones are counted together."""
OTHER = "other reasons"
_SLOT = "\ufffc"
_NUMBER = r"-?\d+(?:\.\d+)?"
_SLOTS = 6


@dataclass
class Group:
    """Reasons of one pattern: how many, and the smallest and largest of each number in them."""

    count: int = 0
    ranges: list[tuple[float, float] | None] = field(default_factory=list)


@dataclass
class Groups:
    """The groups of one filter, in the order they were met."""

    found: dict[str, Group] = field(default_factory=dict)

    def add(self, reasons: pa.Array) -> pa.DictionaryArray:
        """Count some reasons; returns each one's pattern."""
        patterns = patterns_of(reasons)
        new = [p for p in patterns.dictionary.to_pylist() if p not in self.found]
        if excess := new[max(0, PATTERNS - len(self.found)) :]:
            plain = patterns.cast(pa.string())
            rest = pc.is_in(plain, value_set=pa.array(excess))
            patterns = pc.if_else(rest, OTHER, plain).dictionary_encode()
        for code, pattern in enumerate(patterns.dictionary.to_pylist()):
            group = self.found.setdefault(pattern, Group())
            mine = pc.equal(patterns.indices, code)
            group.count += pc.sum(mine).as_py()
            if pattern != OTHER and len(group.ranges) <= _SLOTS:
                _widen(group, pattern, reasons.filter(mine))
        return patterns

    def ranked(self) -> list[str]:
        """The patterns, the most frequent first."""
        return sorted(self.found, key=lambda pattern: (-self.found[pattern].count, pattern))

    def top(self) -> list[tuple[str, int]]:
        """(text, count) of each group, the most frequent first; a number that varies shows as its range."""
        return [(_text(pattern, self.found[pattern]), self.found[pattern].count) for pattern in self.ranked()]


def patterns_of(reasons: pa.Array) -> pa.DictionaryArray:
    """Reasons with numbers and quoted text taken out."""
    plain = pc.replace_substring_regex(reasons.fill_null("no reason given"), r"(?s)(^| )'.*'", r"\1'…'")
    return pc.replace_substring_regex(plain, _NUMBER, _SLOT).dictionary_encode()


def _widen(group: Group, pattern: str, reasons: pa.Array) -> None:
    """Take the numbers of more reasons into the ranges of their group."""
    slots = pattern.count(_SLOT)
    if not 0 < slots <= _SLOTS or (group.ranges and group.ranges[0] is None):
        return
    expression = re.escape(pattern).replace("'…'", "'.*'").replace("…", ".*")
    for slot in range(slots):
        expression = expression.replace(_SLOT, f"(?P<n{slot}>{_NUMBER})", 1)
    try:
        numbers = pc.extract_regex(reasons, f"(?s)^{expression}$")
        ends = [pc.min_max(pc.struct_field(numbers, slot).cast(pa.float64())).as_py() for slot in range(slots)]
    except pa.ArrowInvalid:
        ends = []
    if not ends or any(end["min"] is None for end in ends):
        group.ranges = [None]  # a pattern that cannot be read back keeps its numbers hidden
        return
    new = [(end["min"], end["max"]) for end in ends]
    old = group.ranges or new
    group.ranges = [(min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(old, new, strict=True) if a is not None]


def _text(pattern: str, group: Group) -> str:
    if not group.ranges or group.ranges[0] is None:
        return pattern.replace(_SLOT, "…")
    for ends in group.ranges:
        assert ends is not None
        low, high = (f"{end:.10g}" for end in ends)
        pattern = pattern.replace(_SLOT, low if low == high else f"{low}–{high}", 1)
    return pattern
