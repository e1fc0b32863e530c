"""Reads what a WAT file says of a page: links with their texts and the head's metas, as JSON.

The format is what Common Crawl's extractor writes (https://commoncrawl.org/get-started): an Envelope with the
HTML-Metadata of a response. It has no figures, srcsets or widths, so a WAT gives fewer and
smaller images than its WARC.
"""

from __future__ import annotations

from typing import Any

import orjson

from curate.acquire.html_markup import Image, Markup
from curate.acquire.html_text import fold

_LICENCE_LINKS = ("A@/href", "LINK@/href", "AREA@/href")


def read_wat(content: bytes) -> tuple[str | None, str, list[tuple[str, str]], Markup]:
    """Why the page gives nothing or None, its address, its headers with names in lower case, and its markup.

    The reasons are those of `warc.unusable`, and broken_record for what is no such JSON. Never raises for the content.
    """
    try:
        envelope = orjson.loads(content)["Envelope"]
        warc = envelope["WARC-Header-Metadata"]
        if warc.get("WARC-Type") != "response":
            return "skip", "", [], Markup()
        http = _dict(_dict(envelope.get("Payload-Metadata")).get("HTTP-Response-Metadata"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "broken_record", "", [], Markup()
    url = str(warc.get("WARC-Target-URI") or "").strip("<> ")
    status = str(_dict(http.get("Response-Message")).get("Status") or "")
    found = _dict(http.get("Headers"))
    headers = [(str(name).lower(), str(value)) for name, value in found.items()]
    if status != "200":
        return {"4": "http_4xx", "5": "http_5xx"}.get(status[:1], "protocol"), url, headers, Markup()
    page = http.get("HTML-Metadata")
    if not isinstance(page, dict):
        return "not_html", url, headers, Markup()
    return None, url, headers, _markup(page)


def _markup(page: dict[str, Any]) -> Markup:
    head = _dict(page.get("Head"))
    markup = Markup(title=fold(_text(head.get("Title"))), base=_text(head.get("Base")))
    for meta in _dicts(head.get("Metas")):
        name = _text(meta.get("property")) or _text(meta.get("name"))
        if name == "HTML@/lang":
            markup.language = markup.language or _text(meta.get("content"))
        elif name:
            markup.metas.append((name.strip().lower(), _text(meta.get("content"))))
    links = _dicts(page.get("Links"))
    for place, link in enumerate(links):
        if link.get("path") == "IMG@/src":
            attributes = {"src": _text(link.get("url")), "alt": _text(link.get("alt"))}
            markup.images.append(Image(attributes, place))
    markup.licence = _licence([*links, *_dicts(head.get("Link"))])
    return markup


def _licence(links: list[dict[str, Any]]) -> str:
    commons = ""
    for link in links:
        if link.get("path") in _LICENCE_LINKS:
            url = _text(link.get("url"))
            if "license" in _text(link.get("rel")).lower().split():
                return url
            if "creativecommons.org/" in url:
                commons = commons or url
    return commons


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
