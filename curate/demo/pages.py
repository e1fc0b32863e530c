"""The HTML pages of the mini-web, as untidy as real ones: lazy loading, srcset, figures, broken markup."""

from __future__ import annotations

import html
from collections.abc import Callable

import numpy as np

from curate.demo.plan import Planned

ORIGIN = "http://mini-web.invalid"  # the server puts its own address in its place: the port is not known before
_TRANSPARENT = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
_TITLES = (
    "Craft fair",
    "Our garden",
    "Picture of the day",
    "Spring collection",
    "Holiday album",
    "Poster shop",
)
_FILLER = (
    "Thank you for visiting our little website, we hope that you enjoy your stay.",
    "More pictures will follow next week, so come back soon or subscribe to the letter.",
    "All of the items shown here were made by hand and photographed in our own studio.",
    "Please leave a comment below and tell us which one of them you like the most.",
)


def _relative(item: Planned) -> str:
    return ".." + item.path  # pages lie one folder deep


def _plain(item: Planned, text: str) -> str:
    return f'<p><img src="{item.path}" alt="{text}" width="{item.scene.width}" height="{item.scene.height}"></p>'


def _absolute(item: Planned, text: str) -> str:
    return f'<a href="/about.html"><img class=wide src="{ORIGIN}{item.path}" alt="{text}"/></a>'


def _lazy(item: Planned, text: str) -> str:
    fallback = f'<noscript><img src="{_relative(item)}" alt="{text}"></noscript>'
    return f'<img src="{_TRANSPARENT}" data-src="{_relative(item)}" loading="lazy" alt="{text}">{fallback}'


def _srcset(item: Planned, text: str) -> str:
    small, middle = f"{item.path}?w=80", f"{item.path}?w=160"
    return f'<img src="{small}" srcset="{small} 80w, {item.path} 640w,{middle} 160w" sizes="50vw" alt="{text}">'


def _figure(item: Planned, text: str) -> str:
    return f'<figure><img src="{_relative(item)}" alt=""><figcaption>{text}</figcaption></figure>'


def _rich_figure(item: Planned, text: str) -> str:
    first, _, rest = text.partition(" ")
    caption = f"<b>{first}</b>\n      <span>{rest}</span>"
    image = f'<a href="#"><img src="{item.path}"></a>'
    return f'<figure class="card">{image}<figcaption>{caption}</figcaption></figure>'


def _picture(item: Planned, text: str) -> str:
    source = f'<source srcset="{item.path} 2x, {item.path}?w=160 1x">'
    return f'<picture>{source}<img alt="{text}" data-lazy></picture>'


def _broken(item: Planned, text: str) -> str:
    return f'<div><b><IMG SRC={item.path} ALT="{text}" border=0 <i></b></div></td></span>'


_MARKUPS: tuple[Callable[[Planned, str], str], ...] = (
    _plain,
    _plain,
    _absolute,
    _lazy,
    _srcset,
    _figure,
    _rich_figure,
    _picture,
    _broken,
)


def page_html(items: list[Planned], page: int, pages: int, seed: int) -> bytes:
    """One page that shows the items in order; some pages are in Latin-1 and say so only in a meta tag."""
    rng = np.random.default_rng((seed, page, 21))
    latin = rng.random() < 0.1
    blocks = []
    for item in items:
        text = html.escape(item.caption)
        block = _MARKUPS[int(rng.integers(len(_MARKUPS)))](item, text)
        blocks.append(block)
        if rng.random() < 0.3:
            blocks.append(f"<p>{_FILLER[int(rng.integers(len(_FILLER)))]}")
    title = _TITLES[int(rng.integers(len(_TITLES)))]
    previous, following = f"p{max(0, page - 1):05d}.html", f"p{min(pages - 1, page + 1):05d}.html"
    body = "\n".join(blocks)
    text = (
        f"<!DOCTYPE html>\n<html lang=en><head><meta charset={'iso-8859-1' if latin else 'utf-8'}>"
        f"<title>{title}, page {page + 1}</title></head>\n<body>\n"
        '<header><img src="/logo.png" alt=""><nav><ul><li><a href="/">Home</a>'
        '<li><a href="/about.html">About</a></ul></nav></header>\n'
        f"<h1>{title}</h1>\n{body}\n"
        f'<footer><a href="{previous}">previous</a> <a href="{following}">next</a>'
        f'<img src="{_TRANSPARENT}" width=1 height=1></footer>\n</body></html>\n'
    )
    # A character outside Latin-1 becomes a reference, as an editor of such a page would write it.
    return text.encode("iso-8859-1" if latin else "utf-8", "xmlcharrefreplace")
