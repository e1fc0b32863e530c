"""Finds image-text pairs in one HTML page. Pure: no network, no files; the page may be broken or hostile."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from curate.acquire.fetch_optout import refusal
from curate.acquire.html_markup import Image, Markup, read_markup
from curate.acquire.html_text import MAX_CAPTION, fold
from curate.acquire.html_urls import MAX_URL, absolute_url, largest_candidate
from curate.acquire.pairs import Pair

__all__ = ["MAX_CAPTION", "MAX_URL", "absolute_url", "extract_pairs", "largest_candidate", "pairs_of", "read_page"]

TEXTS = ("alt", "figcaption", "og_title", "og_description", "og_alt")  # where texts are taken from, unless told
ALL_TEXTS = (*TEXTS, "title")
_MAX_SIDE = 100_000  # pixels; larger width and height attributes are nonsense
# Attributes that hold the real address while src holds a placeholder, in the order in which they are tried.
_LAZY_SOURCES = ("data-src", "data-original", "data-lazy-src")
_LAZY_SETS = ("srcset", "data-srcset", "data-lazy-srcset")
_OG_IMAGES = ("og:image", "og:image:url", "og:image:secure_url")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{1,8}){0,4}")
_PIXELS = re.compile(r"\s*(\d{1,6})", re.ASCII)


@dataclass(frozen=True, slots=True)
class PageImages:
    """What a page holds: the pairs in page order, and why other images gave none."""

    pairs: list[Pair]
    images: int  # img elements
    without_text: int  # none of the texts that were asked for
    without_url: int  # no usable http or https address
    repeated: int  # the same address and caption earlier on the page
    refused: str | None = None  # the page asks not to be used: fetch_optout.REASONS; then it has no pairs


def extract_pairs(html: bytes, page_url: str, charset: str | None = None) -> list[Pair]:
    """The image-text pairs of a page in page order; see `read_page`."""
    return read_page(html, page_url, charset).pairs


def read_page(
    html: bytes,
    page_url: str,
    charset: str | None = None,
    *,
    headers: Iterable[tuple[str, str]] = (),
    texts: Collection[str] = TEXTS,
    agent: str = "curate",
) -> PageImages:
    """Reads a page. `charset` is what the server said; a byte order mark overrules it, a meta tag does not.

    An image with both an alt text and another figcaption gives two pairs. Never raises for what is in the
    page.

    Args:
        headers: names in lower case; those that ask something of crawlers, and content-language, are looked at.
        texts: which texts count, of ALL_TEXTS.
        agent: our name in headers and metas, in lower case.
    """
    markup = read_markup(html, charset, agent=agent, all_images="title" in texts)
    return pairs_of(markup, page_url, headers=headers, texts=texts, agent=agent)


def pairs_of(
    markup: Markup,
    page_url: str,
    *,
    headers: Iterable[tuple[str, str]] = (),
    texts: Collection[str] = TEXTS,
    agent: str = "curate",
) -> PageImages:
    """The pairs of a page whose markup was read; see `read_page`."""
    told = list(headers)
    images = markup.bare_images + len(markup.images)
    refused = refusal(told, markup.metas, agent) if told or markup.metas else None
    if refused:
        return PageImages([], images, 0, 0, 0, refused)
    if not markup.images and not markup.metas:
        return PageImages([], images, images, 0, 0)
    base = (absolute_url(markup.base, page_url) if markup.base else None) or page_url
    facts = (page_url, language_of(markup, told), absolute_url(markup.licence, base) if markup.licence else None)
    seen: dict[tuple[str, str], Pair] = {}
    without_text, without_url, repeated = markup.bare_images, 0, 0
    for source, text, url, width, height in open_graph(markup, base, texts):
        if (url, text) not in seen:
            seen[url, text] = Pair(url, text, source, *facts, width, height)
    for image in markup.images:
        found = image_texts(image, markup.title, texts)
        if not found:
            without_text += 1
            continue
        address = image_address(image, base)
        if address is None:
            without_url += 1
            continue
        attributes = image.attributes
        for source, text in found:
            if (address, text) in seen:
                repeated += 1
                continue
            width, height = pixels(attributes.get("width")), pixels(attributes.get("height"))
            seen[address, text] = Pair(address, text, source, *facts, width, height)
    return PageImages(list(seen.values()), images, without_text, without_url, repeated)


def language_of(markup: Markup, headers: Sequence[tuple[str, str]]) -> str | None:
    """What the page claims: html lang, else the one language that the server names."""
    for tag in (markup.language, *(value for name, value in headers if name == "content-language")):
        if _LANGUAGE.fullmatch(tag.strip().lower()):
            return tag.strip().lower()
    return None


def image_texts(image: Image, title: str, texts: Collection[str]) -> list[tuple[str, str]]:
    """(caption_source, text) of the image, without empty and equal texts."""
    alt = fold(image.attributes.get("alt", "")) if "alt" in texts else ""
    caption = image.caption if "figcaption" in texts else ""
    found = [("alt", alt)] if alt else []
    if caption and caption != alt:
        found.append(("figcaption", caption))
    if not found and title and "title" in texts:
        found.append(("title", title))
    return found


def open_graph(
    markup: Markup, base: str, texts: Collection[str]
) -> Iterator[tuple[str, str, str, int | None, int | None]]:
    """(caption_source, text, address, width, height) of the page's first OpenGraph image."""
    said: dict[str, str] = {}
    for name, content in markup.metas:
        said.setdefault(name, content)
    image = next((said[name] for name in _OG_IMAGES if said.get(name, "").strip()), None)
    url = absolute_url(image, base) if image else None
    if url is None:
        return
    width, height = pixels(said.get("og:image:width")), pixels(said.get("og:image:height"))
    wanted = (("og_alt", "og:image:alt"), ("og_title", "og:title"), ("og_description", "og:description"))
    found = [(source, fold(said.get(name, ""))) for source, name in wanted if source in texts]
    if not any(text for _, text in found) and "title" in texts:
        found = [("title", markup.title)]
    for source, text in found:
        if text:
            yield source, text, url, width, height


def image_address(image: Image, base: str) -> str | None:
    """The address of the image's largest version that the markup names."""
    attributes = image.attributes
    for name in _LAZY_SETS:
        if name in attributes:
            url = _usable(largest_candidate(attributes[name]), base)
            if url is not None:
                return url
    for name in (*_LAZY_SOURCES, "src"):
        if name in attributes:
            url = _usable(attributes[name], base)
            if url is not None:
                return url
    return next(filter(None, (_usable(largest_candidate(source), base) for source in image.sources)), None)


def _usable(candidate: str | None, base: str) -> str | None:
    return absolute_url(candidate, base) if candidate and not candidate.isspace() else None


def pixels(written: str | None) -> int | None:
    match = _PIXELS.match(written) if written else None
    if match is None or written is None or "%" in written:
        return None
    value = int(match.group(1))
    return value if 1 <= value <= _MAX_SIDE else None
