"""Image addresses as pages write them: srcsets, and references made absolute. Pure, and hostile input is expected."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import urljoin, urlsplit

import httpx

MAX_URL = 4096  # characters; what is longer is no image address
_GAP, _ADDRESS, _DESCRIPTORS = re.compile(r"[\s,]*"), re.compile(r"\S+"), re.compile(r"[^,]*")
_DESCRIPTOR = re.compile(r"(\d{1,7}(?:\.\d{1,4})?)([wx])")
# Addresses that normalising would not change; most are of this kind, and normalising costs twenty times as much.
_CLEAN_PATH = r"/(?:(?!/|\.)(?:[A-Za-z0-9._~,:@=&+-]|%[0-9A-F]{2})*+(?:/(?=[^/.?#])|(?=\?|$)))*+"
_CLEAN_QUERY = r"(?:\?(?:[A-Za-z0-9._~/,:@=&+-]|%[0-9A-F]{2})++)?"
CLEAN_HOST = r"https?://(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)++[a-z]{2,24}"
_CLEAN_URL = re.compile(CLEAN_HOST + _CLEAN_PATH + _CLEAN_QUERY)
_CLEAN_ROOTED = re.compile(_CLEAN_PATH + _CLEAN_QUERY)
_CLEAN_ORIGIN = re.compile(CLEAN_HOST)


def absolute_url(reference: str, base: str) -> str | None:
    """The reference as an absolute, percent-encoded ASCII address; None unless it is plain http or https.

    >>> absolute_url("a b.jpg", "http://example.com/x/")
    'http://example.com/x/a%20b.jpg'
    >>> absolute_url("data:image/png;base64,AAAA", "http://example.com/") is None
    True
    """
    if len(reference) <= MAX_URL // 2:
        if _CLEAN_URL.fullmatch(reference):
            return reference
        if reference.startswith("/") and _CLEAN_ROOTED.fullmatch(reference):
            origin = _CLEAN_ORIGIN.match(base)
            if origin is not None and base[origin.end() : origin.end() + 1] in ("/", ""):
                return origin.group() + reference
    return _normalised(reference, base)


@lru_cache(maxsize=1024)
def _normalised(reference: str, base: str) -> str | None:
    try:
        joined = urljoin(base, reference.strip(" \t\r\n\f"))
        parts = urlsplit(joined)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            return None
        url = str(httpx.URL(joined).copy_with(fragment=None))
    except (ValueError, httpx.InvalidURL):  # hostile addresses: bad ports, brackets, control characters
        return None
    return url if len(url) <= MAX_URL and url.isascii() else None


def largest_candidate(srcset: str) -> str | None:
    """The address of a srcset's largest candidate (by width, else by density); the first of equals.

    >>> largest_candidate("s.jpg 320w, l.jpg 1280w")
    'l.jpg'
    """
    best, best_size = None, (-1.0, -1.0)
    for url, descriptors in _candidates(srcset[: 16 * MAX_URL]):
        matches = [_DESCRIPTOR.fullmatch(word) for word in descriptors]
        sizes = {match.group(2): float(match.group(1)) for match in matches if match}
        size = (sizes.get("w", 0.0), sizes.get("x", 1.0))
        if size > best_size and not url.lower().startswith("data:"):
            best, best_size = url, size
    return best


def _candidates(srcset: str) -> Iterator[tuple[str, list[str]]]:
    """(address, descriptors) of each candidate; addresses may hold commas, but not at their end."""
    position = 0
    while True:
        position = _GAP.match(srcset, position).end()  # type: ignore[union-attr]
        address = _ADDRESS.match(srcset, position)
        if address is None:
            return
        position = address.end()
        if address.group().endswith(","):
            yield address.group().rstrip(","), []
            continue
        descriptors = _DESCRIPTORS.match(srcset, position)
        position = descriptors.end()  # type: ignore[union-attr]
        yield address.group(), descriptors.group().split()  # type: ignore[union-attr]
