"""Numbers and foreign text as people read them."""

from __future__ import annotations

import unicodedata
from typing import Any

SHORT = 160
"""Characters of a caption or reason that a page shows; `curate explain` shows them whole."""


_JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji are spelt with them


def count(value: int | float) -> str:
    """A whole number with thousands separated.

    >>> count(12345)
    '12,345'
    """
    return f"{round(value):,}"


def plural(value: int, word: str) -> str:
    """A count with its noun.

    >>> plural(1, "sample"), plural(2000, "sample")
    ('1 sample', '2,000 samples')
    """
    return f"{count(value)} {word}{'' if value == 1 else 's'}"


def share(part: float, whole: float) -> str:
    """A share in percent with one decimal; what is not all or nothing never reads 100 % or 0 %.

    >>> share(631, 1000), share(1, 100000), share(99999, 100000), share(5, 5), share(0, 0)
    ('63.1\\xa0%', '<\\xa00.1\\xa0%', '>\\xa099.9\\xa0%', '100\\xa0%', '–')
    """
    if not whole:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "<\xa00.1\xa0%"
    if 99.95 <= percent < 100:
        return ">\xa099.9\xa0%"
    return f"{percent:.0f}\xa0%" if percent in (0, 100) else f"{percent:.1f}\xa0%"


def points(difference: float) -> str:
    """A difference of two shares, -1 to 1, in percentage points.

    >>> points(0.042), points(-0.1)
    ('+4.2', '−10.0')
    """
    return f"{100 * difference:+.1f}".replace("-", "−")


def value(number: Any) -> str:
    """A parameter or measured value on one line.

    >>> value(None), value(["en", "de"]), value(0.30000001), value(4096)
    ('none', 'en, de', '0.3', '4096')
    """
    if number is None:
        return "none"
    if isinstance(number, bool):
        return "yes" if number else "no"
    if isinstance(number, float):
        return f"{number:.6g}"
    if isinstance(number, (list, tuple)):
        return ", ".join(value(item) for item in number)
    if isinstance(number, dict):
        return ", ".join(f"{name} {value(item)}" for name, item in number.items())
    return tidy(str(number))


def tidy(text: str | None, limit: int | None = SHORT) -> str:
    """Foreign text as one line: white space squeezed, control and direction characters gone, long text cut.

    >>> tidy(" a \\n cat\\x00 ")
    'a cat'
    """
    if text is None:
        return ""
    if limit is not None:
        text = text[: 4 * limit]
    visible = "".join(" " if c.isspace() else c for c in text if c.isspace() or c in _JOINERS or not _hidden(c))
    line = " ".join(visible.split())
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _hidden(character: str) -> bool:
    """Control, format and direction characters, lone surrogates and the like."""
    return unicodedata.category(character).startswith("C")
