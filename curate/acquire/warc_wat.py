"""Reads what a WAT file says of a page: links with their texts and the head's metas, as JSON.

The format is what Common Crawl's extractor writes (https://commoncrawl.org/get-started): an Envelope with the
HTML-Metadata of a response. It has no figures, srcsets or widths, so a WAT gives fewer and smaller images than its
WARC. Its values are text; before September 2019 they were markup, as it stood on the page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from curate.acquire.html_markup import Image, Markup, Scanned
from curate.acquire.html_text import attribute_text, fold

DECODED_SINCE = "2019-09"
TAKEN_OUT = "*"  # stands where the links were
_LICENCE_LINKS = ("A@/href", "LINK@/href", "AREA@/href")
_TYPE = b'"WARC-Type"'
_OF_ANOTHER = re.compile(rb'"WARC-Type"\s*:\s*"(?:request|metadata|warcinfo)"')
_STATUS_ERRORS = {"4": "http_4xx", "5": "http_5xx"}


@dataclass(frozen=True, slots=True)
class Wat:
    """What a record says of a page, or why it gives nothing: a reason of `warc.archive_pages`, "" for no page."""

    reason: str | None
    url: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)  # names in lower case
    markup: Markup = field(default_factory=Markup)
    scanned: Scanned | None = None  # its images, where `markup` has none


def read_wat(content: bytes, *, decoded: bool = True, apart: bool = False) -> Wat:
    """Reads a record. Never raises for the content.

    Args:
        decoded: its values are text, not markup.
        apart: leave the images to `Wat.scanned`, which costs a fraction, where they are plain enough for that.
    """
    place = content.find(_TYPE)
    if _OF_ANOTHER.match(content, place) and content.find(_TYPE, place + 1) < 0:
        return Wat("")
    found = _apart(content, decoded) if apart else None
    return found or _read(content, decoded, None) or Wat("broken_record")


def _apart(content: bytes, decoded: bool) -> Wat | None:
    """The record with its images apart; None if it must be read as a whole."""
    from curate.acquire.wat_links import licence_links, links_in  # numba, which nothing but reading pages needs

    split = links_in(content, escape=decoded)
    if split is None:
        return None
    rest, scanned = split
    wat = _read(rest, decoded, licence_links(scanned, escaped=decoded))
    return None if wat is None else replace(wat, scanned=scanned)


def _read(content: bytes, decoded: bool, links: list[dict[str, str]] | None) -> Wat | None:
    """What a record says; None if it is no such JSON, or if its `links` were taken out at another place."""
    try:
        envelope = orjson.loads(content)["Envelope"]
        warc = envelope["WARC-Header-Metadata"]
        if warc.get("WARC-Type") != "response":
            return Wat("")
        http = _dict(_dict(envelope.get("Payload-Metadata")).get("HTTP-Response-Metadata"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    url = str(warc.get("WARC-Target-URI") or "").strip("<> ")
    status = str(_dict(http.get("Response-Message")).get("Status") or "")
    headers = [(str(name).lower(), str(value)) for name, value in _dict(http.get("Headers")).items()]
    if status != "200":
        return Wat(_STATUS_ERRORS.get(status[:1], "protocol"), url, headers)
    page = http.get("HTML-Metadata")
    if not isinstance(page, dict):
        return Wat("not_html", url, headers)
    if links is not None:
        if page.get("Links") != [TAKEN_OUT]:
            return None
        page["Links"] = links
    return Wat(None, url, headers, _markup(page, decoded))


def _markup(page: dict[str, Any], decoded: bool) -> Markup:
    def text(value: Any) -> str:
        if not isinstance(value, str):
            return ""
        return value if decoded else attribute_text(value)

    head = _dict(page.get("Head"))
    markup = Markup(title=fold(text(head.get("Title"))), base=text(head.get("Base")))
    for meta in _dicts(head.get("Metas")):
        name = text(meta.get("property")) or text(meta.get("name"))
        if name == "HTML@/lang":
            markup.language = markup.language or text(meta.get("content"))
        elif name:
            markup.metas.append((name.strip().lower(), text(meta.get("content"))))
    links = _dicts(page.get("Links"))
    for place, link in enumerate(links):
        if link.get("path") == "IMG@/src":
            markup.images.append(Image({"src": text(link.get("url")), "alt": text(link.get("alt"))}, place))
    commons = ""
    for link in (*links, *_dicts(head.get("Link"))):
        if link.get("path") in _LICENCE_LINKS:
            url = text(link.get("url"))
            if "license" in text(link.get("rel")).lower().split():
                markup.licence = url
                return markup
            if "creativecommons.org/" in url:
                commons = commons or url
    markup.licence = commons
    return markup


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
