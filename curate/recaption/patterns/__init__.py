"""The patterns of checks, one file each: RE2 patterns, one a line, below the name of their kind in brackets.

`name = pattern` gives what `<name>` stands for further down; a line that begins with `#` is a comment.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

import pyarrow as pa
import pyarrow.compute as pc

START = (
    r"(?:^|[.!?\x{3002}\x{FF01}\x{FF1F}]['\")\]]*\s*|[,;] (?:so|and|but|because) |\n)"
    r"[\s\"'«„“(*_]*(?:h+m+|oh|well|u[hm]+)?[,. ]*"
)
"""`<start>`: where a sentence or a clause begins. What a sign says, inside one, does not count."""


@cache
def read_patterns(name: str) -> dict[str, str]:
    """Kind to one pattern that finds what any of its lines does.

    >>> list(read_patterns("format"))
    ['label', 'markdown', 'list']
    """
    known, kinds = {"start": START}, dict[str, list[str]]()
    for line in (files(__name__) / f"{name}.txt").read_text("utf-8").splitlines():
        definition = re.match(r"([a-z]+) = (.*)", line)
        if definition and not kinds:
            known[definition[1]] = definition[2]
        elif heading := re.fullmatch(r"\[([a-z ]+)\]", line):
            kinds[heading[1]] = []
        elif line and not line.startswith("#"):
            kinds[list(kinds)[-1]].append(re.sub(r"<([a-z]+)>", lambda m: known.get(m[1], m[0]), line))
    return {kind: "|".join(patterns) for kind, patterns in kinds.items()}


def check_kinds(name: str, wanted: tuple[str, ...], more: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Raises ValueError for a kind that a file of patterns does not have."""
    known = [*read_patterns(name), *more]
    if unknown := [kind for kind in wanted if kind not in known]:
        raise ValueError(f"no patterns for {unknown[0]!r}; there are some for {', '.join(known)}")
    return wanted


def check_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Raises ValueError for a pattern that is not RE2's, with what is wrong."""
    for pattern in patterns:
        try:
            pc.match_substring_regex(pa.array([""]), pattern)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{pattern!r} is no pattern that RE2 knows: {error}") from error
    return patterns
