"""What a page asks of those who would use it: X-Robots-Tag headers, robots metas, the TDM reservation protocol.

One reason is reported for a page, the first of `REASONS` that applies. robots.txt is asked before a page is fetched.
"""

from __future__ import annotations

from collections.abc import Iterable

REASONS = ("noai", "noimageai", "noml", "noindex", "noimageindex", "tdm_reservation")
_HAVE_VALUES = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")


def product(user_agent: str) -> str:
    """The name that robots.txt, headers and metas call a crawler by.

    >>> product("Curate/0.1 (image-text crawler)")
    'curate'
    """
    return user_agent.split("/")[0].split(" ")[0].strip().lower()


def refusal(headers: Iterable[tuple[str, str]], metas: Iterable[tuple[str, str]], agent: str) -> str | None:
    """Why the page must not be used, one of REASONS; None if it may be.

    Args:
        headers: (name, value) of X-Robots-Tag and tdm-reservation, names in lower case.
        metas: (name, content) of the page's metas, names in lower case.
        agent: our name, as `product` gives it: what is said to another crawler is not said to us.
    """
    said: set[str] = set()
    for name, value in headers:
        said |= _directives(value, agent) if name == "x-robots-tag" else _reserved(name, value)
    for name, content in metas:
        if name == "robots" or name == agent:
            said |= set(content.lower().replace(",", " ").split())
        else:
            said |= _reserved(name, content)
    if "none" in said:
        said.add("noindex")
    return next((reason for reason in REASONS if reason in said), None) if said else None


def _reserved(name: str, value: str) -> set[str]:
    return {"tdm_reservation"} if name == "tdm-reservation" and value.strip() == "1" else set()


def _directives(value: str, agent: str) -> set[str]:
    """The directives of one X-Robots-Tag value that are for all crawlers or for us.

    >>> sorted(_directives("otherbot: noai, noindex", "curate"))
    []
    """
    said: set[str] = set()
    for_us = True  # a name holds for the directives after it, to the next name
    for part in value.lower().split(","):
        name, colon, rest = part.partition(":")
        if colon and name.strip() not in _HAVE_VALUES:
            for_us = name.strip() in (agent, "*")
            part = rest
        if for_us:
            said.add(part.strip())
    return said
