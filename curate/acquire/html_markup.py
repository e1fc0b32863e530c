"""What a page holds before anything is decided: images, metas, title, language, base, licence. Pure, no network."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass, field

from curate.acquire.html_tags import Tag, attributes, tag_at, tags
from curate.acquire.html_text import Decoder, attribute_text, fold

MAX_IMAGES = 100_000  # of a page; keeps a hostile one from costing more than seconds
_MAX_LICENCES = 100  # places looked at
_ALT = re.compile(rb"[\s\"'/][aA][lL][tT]\s*=\s*(?!\"\s*\"|'\s*')")
_CAPTION_END = re.compile(rb"</?[fF][iI][gG]")
_PICTURE_END = re.compile(rb"</[pP][iI][cC][tT][uU][rR][eE]")
_JSON_LICENCE = re.compile(rb'"license"\s*:\s*(?:\{[^{}]{0,500}?"(?:@id|url)"\s*:\s*)?("(?:[^"\\\n]|\\.){1,2000}")')
_USED_METAS = (b"og:", b"robots", b"tdm-")


@dataclass(slots=True)
class Figure:
    """A figure: its caption, and whether its end tag was found."""

    caption: str = ""
    caption_end: int = 0
    open_from: int = 0
    closed: bool = False


@dataclass(slots=True)
class Image:
    """An image with a text or in a figure. Names of attributes in lower case."""

    attributes: dict[str, str]
    place: int
    figure: Figure | None = None
    sources: tuple[str, ...] = ()  # srcsets of the picture around it

    @property
    def caption(self) -> str:
        """The text of the figure around it. One that is never closed ends with its caption."""
        if self.figure is None or (not self.figure.closed and self.place > self.figure.caption_end > 0):
            return ""
        return self.figure.caption


@dataclass(slots=True)
class Markup:
    """A page's content that matters here, as it stands in the markup."""

    images: list[Image] = field(default_factory=list)
    bare_images: int = 0  # further images, with no text at all
    metas: list[tuple[str, str]] = field(default_factory=list)  # name or property in lower case, content
    title: str = ""
    language: str = ""
    base: str = ""
    licence: str = ""  # a reference, as written


def read_markup(html: bytes, charset: str | None, *, agent: str = "", all_images: bool = False) -> Markup:
    """Reads a page; never raises for what it holds.

    Args:
        charset: what the server said; a byte order mark overrules it, a meta tag does not.
        agent: a further name of metas to keep, in lower case.
        all_images: read images without a text of their own, too.
    """
    return _Reader(Decoder(html, charset), agent.encode(), all_images).read()


class _Reader:
    def __init__(self, decoder: Decoder, agent: bytes, all_images: bool) -> None:
        self._decoder, self._all = decoder, all_images
        self._html = decoder.html
        self._metas = (*_USED_METAS, agent) if agent else _USED_METAS
        self._markup = Markup()
        self._figures: list[Figure] = []
        self._picture: tuple[int, list[str]] | None = None
        self._raw: list[tuple[int, int]] = []

    def read(self) -> Markup:
        for tag in tags(self._html):
            if tag.name == b"img" or tag.name == b"image":
                self._image(tag)
            elif tag.raw is not None:
                self._raw_text(tag)
            else:
                self._other(tag)
        wanted = self._markup.images or self._markup.metas
        if wanted and (b"license" in self._html or b"creativecommons.org/" in self._html):
            self._markup.licence = self._licence()
        return self._markup

    def _attributes(self, tag: Tag) -> dict[str, str]:
        text = self._decoder.decode(self._html[tag.start : tag.end])
        found = attributes(text)
        return {name: attribute_text(value) for name, value in found.items()} if "&" in text else found

    def _image(self, tag: Tag) -> None:
        markup = self._markup
        if len(markup.images) >= MAX_IMAGES:
            return
        has_text = self._figures or self._all or self._has_alt(tag.start, tag.end)
        sources: list[str] = []
        if self._picture is not None:
            if not _PICTURE_END.search(self._html, self._picture[0], tag.start):
                sources = self._picture[1]
            self._picture = None
        if not has_text:
            markup.bare_images += 1
            return
        figure = self._figures[-1] if self._figures else None
        markup.images.append(Image(self._attributes(tag), tag.start, figure, tuple(sources)))

    def _has_alt(self, start: int, end: int) -> bool:
        """Whether an image may have an alt text; most that have none are told without reading their attributes."""
        place = self._html.find(b"alt", start, end)
        return _ALT.search(self._html, place - 1 if place > 0 else start, end) is not None

    def _raw_text(self, tag: Tag) -> None:
        assert tag.raw is not None
        self._raw.append(tag.raw)
        if tag.name == b"title" and not self._markup.title:
            self._markup.title = self._decoder.text(self._html[slice(*tag.raw)].replace(b"<", b"&lt;"))

    def _other(self, tag: Tag) -> None:
        markup, name = self._markup, tag.name
        if name == b"meta":
            raw = self._html[tag.start : tag.end].lower()
            if any(word in raw for word in self._metas):
                found = self._attributes(tag)
                meta = found.get("property") or found.get("name") or ""
                if meta and "content" in found:
                    markup.metas.append((meta.strip().lower(), found["content"]))
        elif name == b"figure":
            self._figures.append(Figure(open_from=tag.start))
        elif name == b"/figure":
            if self._figures:
                self._figures.pop().closed = True
        elif name == b"figcaption":
            if self._figures and not self._figures[-1].caption:
                self._caption(tag.end, self._figures[-1])
        elif name == b"picture":
            self._picture = (tag.end, [])
        elif name == b"source":
            if self._picture is not None and len(self._picture[1]) < 50:
                self._picture[1].append(self._attributes(tag).get("srcset", ""))
        elif name == b"base" and not markup.base:
            markup.base = self._attributes(tag).get("href", "")
        elif name == b"html" and not markup.language:
            markup.language = self._attributes(tag).get("lang", "")

    def _caption(self, start: int, figure: Figure) -> None:
        end = _CAPTION_END.search(self._html, start)
        figure.caption_end = end.start() if end else len(self._html)
        figure.caption = self._decoder.text(self._html[start : figure.caption_end])

    def _licence(self) -> str:
        """What the page's licence link names: rel=license, then JSON-LD, then a link to Creative Commons."""
        linked, commons = "", ""
        for place in self._places(b"license"), self._places(b"creativecommons.org/"):
            for found in place:
                if found.get("rel") and "license" in found["rel"].lower().split():
                    linked = linked or found.get("href", "")
                elif "creativecommons.org/" in found.get("href", ""):
                    commons = commons or found["href"]
        return fold(linked or self._json_licence() or commons)

    def _places(self, word: bytes) -> list[dict[str, str]]:
        """The attributes of the links that a word stands in, outside of scripts."""
        html, found, place = self._html, [], -1
        starts = [start for start, _ in self._raw]
        for _ in range(_MAX_LICENCES):
            place = html.find(word, place + 1)
            if place < 0:
                break
            raw = bisect_right(starts, place) - 1
            tag = tag_at(html, html.rfind(b"<", 0, place), (b"a", b"link", b"area"))
            if (raw >= 0 and place < self._raw[raw][1]) or html.rfind(b"<!--", 0, place) > html.rfind(b"-->", 0, place):
                continue
            if tag is not None and place < tag.end:
                found.append(self._attributes(tag))
        return found

    def _json_licence(self) -> str:
        for start, end in self._raw:
            found = _JSON_LICENCE.search(self._html, start, end)
            if found is not None:
                try:
                    text = str(json.loads(self._decoder.decode(found.group(1))))
                except ValueError:
                    continue
                if text.startswith(("http://", "https://")):
                    return text
        return ""
