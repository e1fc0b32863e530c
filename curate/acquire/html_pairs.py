"""A page's pairs straight into a batch of columns: what `html.read_page` gives, at a fraction of its cost.

Images that are as plain as most are read by `html_plain`, which is compiled; the others one by one, as by `read_page`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from curate.acquire.fetch_optout import refusal
from curate.acquire.html import PageImages, image_address, image_texts, language_of, open_graph, pairs_of, pixels
from curate.acquire.html_markup import Markup, Scanned, read_markup
from curate.acquire.html_plain import PER_IMAGE, write_pairs
from curate.acquire.html_urls import CLEAN_HOST, absolute_url
from curate.acquire.pairs_batch import PairBatch
from curate.acquire.warc_wat import Wat

_STEP = r"(?!\.)(?:[A-Za-z0-9._~,:@=&+-]|%[0-9A-F]{2})+/"
_FOLDER = re.compile(rf"(({CLEAN_HOST})/(?:{_STEP})*)[^/?#]*(?:[?#].*)?", re.DOTALL)


def add_page(
    batch: PairBatch,
    html: bytes,
    page_url: str,
    charset: str | None,
    *,
    headers: Iterable[tuple[str, str]],
    texts: Collection[str],
    agent: str,
) -> PageImages:
    """Adds a page's pairs to the batch, those that stand there more than once too; the counts, with no pairs.

    See `html.read_page` for the arguments.
    """
    told = list(headers)
    if "alt" not in texts or "figcaption" not in texts or "title" in texts:
        markup = read_markup(html, charset, agent=agent, all_images="title" in texts)
        page = pairs_of(markup, page_url, headers=told, texts=texts, agent=agent)
        batch.add_pairs(page.pairs)
        return replace(page, pairs=[])
    scanned = Scanned(html, charset, agent)
    return _add(batch, scanned, scanned.markup(), page_url, told, texts, agent)


def add_wat(batch: PairBatch, wat: Wat, *, texts: Collection[str], agent: str) -> PageImages:
    """Adds the pairs of a page that a WAT record tells of; see `add_page`."""
    if wat.scanned is not None:
        return _add(batch, wat.scanned, wat.markup, wat.url, wat.headers, texts, agent)
    page = pairs_of(wat.markup, wat.url, headers=wat.headers, texts=texts, agent=agent)
    batch.add_pairs(page.pairs)
    return replace(page, pairs=[])


def _add(
    batch: PairBatch,
    scanned: Scanned,
    markup: Markup,
    page_url: str,
    told: Sequence[tuple[str, str]],
    texts: Collection[str],
    agent: str,
) -> PageImages:
    refused = refusal(told, markup.metas, agent) if told or markup.metas else None
    if refused:
        return PageImages([], len(scanned.images()), 0, 0, 0, refused)
    base = (absolute_url(markup.base, page_url) if markup.base else None) or page_url
    number, first = len(batch.pages), batch.count
    images, without_text, without_url, slow = _plain(batch, scanned, base, number)
    for order, (source, text, url, width, height) in enumerate(open_graph(markup, base, texts) if markup.metas else ()):
        batch.add(number, order, (url, text, source, width, height))
    if slow:
        more = _one_by_one(batch, scanned, base, number, texts)
        without_text, without_url = without_text + more[0], without_url + more[1]
    if batch.count > first:
        licence = absolute_url(markup.licence, base) if markup.licence else None
        batch.page(page_url, language_of(markup, told), licence)
    return PageImages([], images, without_text, without_url, 0)


def _plain(batch: PairBatch, page: Scanned, base: str, number: int) -> tuple[int, int, int, int]:
    """Adds the pairs of plain images: how many images, without text, without address, and not decided yet."""
    rows = len(page.found)
    if not rows:
        return 0, 0, 0, 0
    folder, origin = _folder(base)
    room = len(page.html)  # for an address that stands before an alt text and a figure's caption
    batch.reserve(2 * rows, len(page.html) + rows * (len(folder) + 16) + room)
    counts = np.empty(4, np.int64)
    data = np.frombuffer(page.html, np.uint8)
    added, batch.used = write_pairs(
        data,
        page.found,
        page.decoder.is_utf8,
        folder,
        origin,
        batch.arena,
        batch.used,
        room,
        batch.rows[batch.count :],
        number,
        counts,
    )
    batch.count += added
    images, without_text, without_url, slow = counts.tolist()
    return images, without_text, without_url, slow


def _one_by_one(batch: PairBatch, page: Scanned, base: str, number: int, texts: Collection[str]) -> tuple[int, int]:
    """Adds the pairs of the images that are left: how many without text, and without address."""
    without_text = without_url = 0
    for place in page.images():
        image = page.image(place)
        found = image_texts(image, "", texts)
        address = image_address(image, base) if found else None
        without_text += not found
        if address is None:
            without_url += bool(found)
            continue
        width, height = pixels(image.attributes.get("width")), pixels(image.attributes.get("height"))
        for step, (source, text) in enumerate(found):
            batch.add(number, (place + 1) * PER_IMAGE + step, (address, text, source, width, height))
    return without_text, without_url


@lru_cache(maxsize=1024)
def _folder(base: str) -> tuple[np.ndarray, int]:
    """A plain address up to its last slash, and the length of its scheme and host; empty and 0 for others."""
    match = _FOLDER.fullmatch(base if base.count("/") > 2 else f"{base}/")
    folder, origin = match.groups() if match else ("", "")
    return np.frombuffer(folder.encode(), np.uint8), len(origin)
