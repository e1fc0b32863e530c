"""What a page holds before anything is decided: images, metas, title, language, base, licence. Pure, no network."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from curate.acquire.html_text import Decoder, attribute_text, fold

if TYPE_CHECKING:
    import numpy as np

_MAX_LICENCES = 100  # places looked at
_MAX_SOURCES = 50  # of a picture
_JSON_LICENCE = re.compile(rb'"license"\s*:\s*(?:\{[^{}]{0,500}?"(?:@id|url)"\s*:\s*)?("(?:[^"\\\n]|\\.){1,2000}")')


@dataclass(slots=True)
class Figure:
    """A figure: its caption, and whether its end tag was found."""

    caption: str = ""
    caption_end: int = 0
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


class Scanned:
    """A page whose tags were found; never raises for what it holds.

    Args:
        charset: what the server said; a byte order mark overrules it, a meta tag does not.
        agent: a further name of metas to keep, in lower case.
        found: what was found already, as `html_scan.found_on` gives it.
    """

    def __init__(self, html: bytes, charset: str | None, agent: str = "", *, found: np.ndarray | None = None) -> None:
        from curate.acquire import html_scan  # numba, which nothing but reading pages needs

        self._scan, self._column = html_scan, html_scan.COLUMN
        self.decoder = Decoder(html, charset)
        self.html = self.decoder.html
        self.found: np.ndarray = html_scan.found_on(self.html, agent.encode()) if found is None else found
        self._figures: dict[int, Figure] | None = None

    def markup(self, *, title: bool = False) -> Markup:
        """All but the images. The title only if it is asked for."""
        scan, markup = self._scan, Markup()
        links: list[list[int]] = []
        for row in self.found[self.found[:, scan.KIND] != scan.IMAGE].tolist():
            kind = row[scan.KIND]
            if kind == scan.META:
                meta = self._attribute(row, "property") or self._attribute(row, "name")
                content = self._attribute(row, "content")
                if meta and content is not None:
                    markup.metas.append((meta.strip().lower(), content))
            elif kind == scan.HTML:
                markup.language = markup.language or self._attribute(row, "lang") or ""
            elif kind == scan.BASE:
                markup.base = markup.base or self._attribute(row, "href") or ""
            elif kind == scan.TITLE and title:
                text = self.html[row[scan.END] : row[scan.TO]].replace(b"<", b"&lt;")
                markup.title = markup.title or self.decoder.text(text)
            elif kind in (scan.LINK, scan.JSON_LD):
                links.append(row)
        if links:
            markup.licence = self._licence(links[:_MAX_LICENCES])
        return markup

    def _attribute(self, row: list[int], name: str) -> str | None:
        """An attribute of the tag of a row of what was found."""
        column = self._column[name]
        start, end = row[column], row[column + 1]
        return attribute_text(self.decoder.decode(self.html[start:end])) if start >= 0 else None

    def image(self, place: int) -> Image:
        """The image of a row of what was found."""
        scan, row = self._scan, self.found[place].tolist()
        told = ((name, self._attribute(row, name)) for name in scan.ATTRIBUTES[: scan.OF_IMAGES])
        attributes = {name: value for name, value in told if value is not None}
        figure = self._figure(row[scan.UP]) if row[scan.UP] >= 0 else None
        sources = self._sources(place, row[scan.TO]) if row[scan.TO] >= 0 else ()
        return Image(attributes, row[scan.START], figure, sources)

    def images(self) -> Sequence[int]:
        """The rows of images."""
        places: list[int] = (self.found[:, self._scan.KIND] == self._scan.IMAGE).nonzero()[0].tolist()
        return places

    def _figure(self, place: int) -> Figure:
        if self._figures is None:
            self._figures = {}
            scan = self._scan
            for number, row in enumerate(self.found[:, : scan.FIRST].tolist()):
                if row[scan.KIND] == scan.FIGURE:
                    self._figures[number] = Figure(closed=row[scan.TO] == 1)
                elif row[scan.KIND] == scan.FIGCAPTION and not self._figures[row[scan.UP]].caption:
                    figure = self._figures[row[scan.UP]]
                    figure.caption_end = row[scan.TO]
                    figure.caption = self.decoder.text(self.html[row[scan.END] : row[scan.TO]])
        return self._figures[place]

    def _sources(self, image: int, picture: int) -> tuple[str, ...]:
        """The srcsets in a picture before its image."""
        scan = self._scan
        rows = self.found[:image]
        rows = rows[(rows[:, scan.KIND] == scan.SOURCE) & (rows[:, scan.UP] == picture)]
        return tuple(self._attribute(row, "srcset") or "" for row in rows[:_MAX_SOURCES].tolist())

    def _licence(self, links: list[list[int]]) -> str:
        """What the page's licence link names: rel=license, then JSON-LD, then a link to Creative Commons."""
        scan, linked, named, commons = self._scan, "", "", ""
        for row in links:
            if row[scan.KIND] == scan.JSON_LD:
                named = named or self._json_licence(row[scan.END], row[scan.TO])
                continue
            href = self._attribute(row, "href") or ""
            if "license" in (self._attribute(row, "rel") or "").lower().split():
                linked = linked or href
            elif "creativecommons.org/" in href.lower():
                commons = commons or href
        return fold(linked or named or commons)

    def _json_licence(self, start: int, end: int) -> str:
        found = _JSON_LICENCE.search(self.html, start, end)
        try:
            text = str(json.loads(self.decoder.decode(found.group(1)))) if found else ""
        except ValueError:
            return ""
        return text if text.startswith(("http://", "https://")) else ""


def read_markup(html: bytes, charset: str | None, *, agent: str = "", all_images: bool = False) -> Markup:
    """All that a page holds; see `Scanned`.

    Args:
        all_images: read images without a text of their own, and the title, too.
    """
    page = Scanned(html, charset, agent)
    markup = page.markup(title=all_images)
    for place in page.images():
        image = page.image(place)
        if all_images or image.figure is not None or image.attributes.get("alt"):
            markup.images.append(image)
        else:
            markup.bare_images += 1
    return markup
