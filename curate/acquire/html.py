"""Finds image-text pairs in one HTML page. Pure: no network, no files; the page may be broken or hostile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpx
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import ElementNode, HTMLTree

from curate.acquire.pairs import Pair

MAX_CAPTION = 4096  # characters; what is longer is cut
MAX_URL = 4096  # characters; what is longer is no image address
_MAX_IMAGES = 5_000  # looked at per page; keeps a hostile page from costing more than a second or two
_MAX_DEPTH = 32  # levels between an image and its figure
_MAX_SIDE = 100_000  # pixels; larger width and height attributes are nonsense
# Attributes that hold the real address while src holds a placeholder, in the order in which they are tried.
_LAZY_SOURCES = ("data-src", "data-original", "data-lazy-src")
_LAZY_SETS = ("srcset", "data-srcset", "data-lazy-srcset")
_GAP, _ADDRESS, _DESCRIPTORS = re.compile(r"[\s,]*"), re.compile(r"\S+"), re.compile(r"[^,]*")
_DESCRIPTOR = re.compile(r"(\d{1,7}(?:\.\d{1,4})?)([wx])")
_FOLD = re.compile(r"[\s\x00-\x20\x7f\u200b\ufeff]+")
_UTF_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16le"), (b"\xfe\xff", "utf-16be"))


@dataclass(frozen=True, slots=True)
class PageImages:
    """What a page holds: the pairs in page order, and why other images gave none."""

    pairs: list[Pair]
    images: int  # img elements
    without_text: int  # neither an alt text nor a figcaption
    without_url: int  # no usable http or https address
    repeated: int  # the same address and caption earlier on the page


def extract_pairs(html: bytes, page_url: str, charset: str | None = None) -> list[Pair]:
    """The image-text pairs of a page in page order; see `read_page`."""
    return read_page(html, page_url, charset).pairs


def read_page(html: bytes, page_url: str, charset: str | None = None) -> PageImages:
    """Reads a page. `charset` is what the server said; a byte order mark overrules it, a meta tag does not.

    An image with both an alt text and another figcaption gives two pairs. Never raises for what is in the
    page.
    """
    tree = HTMLTree.parse_from_bytes(html, _encoding(html, charset), "replace")
    document = tree.document
    if document is None:
        return PageImages([], 0, 0, 0, 0)
    base = _base_url(document.query_selector("base[href]"), page_url)
    language = _language(document.query_selector("html"))
    captions: dict[ElementNode, str] = {}
    seen: dict[tuple[str, str], Pair] = {}
    images = without_text = without_url = repeated = 0
    # The slice is a tuple; iterating the collection itself searches the page again for every element.
    for image in document.query_selector_all("img")[:]:
        images += 1
        if images > _MAX_IMAGES:
            break
        texts = _texts(image, captions)
        if not texts:
            without_text += 1
            continue
        url = _image_url(image, base)
        if url is None:
            without_url += 1
            continue
        for source, text in texts:
            if (url, text) in seen:
                repeated += 1
                continue
            seen[url, text] = Pair(
                url, text, source, page_url, language, _pixels(image, "width"), _pixels(image, "height")
            )
    return PageImages(list(seen.values()), images, without_text, without_url, repeated)


def absolute_url(reference: str, base: str) -> str | None:
    """The reference as an absolute, percent-encoded ASCII address; None unless it is plain http or https.

    >>> absolute_url("a b.jpg", "http://example.com/x/")
    'http://example.com/x/a%20b.jpg'
    >>> absolute_url("data:image/png;base64,AAAA", "http://example.com/") is None
    True
    """
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


def _encoding(html: bytes, charset: str | None) -> str:
    for mark, name in _UTF_BOMS:
        if html.startswith(mark):
            return name
    told = map_encoding_to_html5(charset, False) if charset else None
    return told or detect_encoding(html, html5_compatible=True, from_html_meta=True) or "utf-8"


def _base_url(base: ElementNode | None, page_url: str) -> str:
    href = base.getattr("href") if base is not None else None
    return (absolute_url(href, page_url) if href else None) or page_url


def _language(root: ElementNode | None) -> str | None:
    tag = (root.getattr("lang") or "").strip().lower() if root is not None else ""
    return tag if re.fullmatch(r"[a-z]{2,3}(-[a-z0-9]{1,8}){0,4}", tag) else None


def _fold(text: str | None) -> str:
    """One line: white space and control characters become single spaces."""
    return _FOLD.sub(" ", (text or "")[: 4 * MAX_CAPTION]).strip()[:MAX_CAPTION].rstrip()


def _texts(image: ElementNode, captions: dict[ElementNode, str]) -> list[tuple[str, str]]:
    """(caption_source, text) of the image, without empty and equal texts."""
    alt, caption = _fold(image.getattr("alt")), _figure_caption(image, captions)
    texts = [("alt", alt)] if alt else []
    if caption and caption != alt:
        texts.append(("figcaption", caption))
    return texts


def _figure_caption(image: ElementNode, captions: dict[ElementNode, str]) -> str:
    """The caption of the figure around the image; each figure's is read once, whatever it holds."""
    node = image.parent
    for _ in range(_MAX_DEPTH):
        if node is None or node.tag == "figure":
            break
        node = node.parent
    if node is None or node.tag != "figure" or not isinstance(node, ElementNode):
        return ""
    if node not in captions:
        found = node.query_selector("figcaption")
        captions[node] = _fold(found.text) if found is not None else ""
    return captions[node]


def _image_url(image: ElementNode, base: str) -> str | None:
    """The address of the image's largest version that the markup names."""
    candidates = [largest_candidate(image.getattr(name) or "") for name in _LAZY_SETS]
    candidates += [image.getattr(name) for name in (*_LAZY_SOURCES, "src")]
    parent = image.parent
    if parent is not None and parent.tag == "picture":
        sources = [child for child in parent.child_nodes[:50] if child.tag == "source"]
        candidates += [largest_candidate(child.getattr("srcset") or "") for child in sources]  # type: ignore[attr-defined]
    for candidate in candidates:
        url = absolute_url(candidate, base) if candidate and candidate.strip() else None
        if url is not None:
            return url
    return None


def _pixels(image: ElementNode, name: str) -> int | None:
    match = re.match(r"\s*(\d{1,6})", image.getattr(name) or "", re.ASCII)
    value = int(match.group(1)) if match else 0
    return value if 1 <= value <= _MAX_SIDE and "%" not in (image.getattr(name) or "") else None
