"""Crawling an archive against only reading its records with fastwarc, one process on both sides.

The pages are like those of the web: 70 kB, a tag every 25 bytes of what is no script or style, 25 images, half of them
with a text. Reading alone runs at half a gigabyte a second, so the bound leaves a page a fifth of a millisecond.
A crawl decompresses in a thread beside, so the speed is told by the clock, and the processor time too.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from fastwarc.warc import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from curate.acquire.crawl import crawl
from tests.bench.figure import Figure
from tests.curate.test_acquire_archives import wat_of

PAGES, IMAGES, ROUNDS = 600, 25, 15
SRCSET, FIGURES = "every image with a srcset", "every image in a figure with a caption"
WAT = "of the WAT that tells of these pages"
_SYLLABLES = ("ka", "lo", "mi", "ter", "ran", "sel", "du", "vo", "pia", "nor", "est", "al", "ben", "cor", "dra", "fin")


def run(work: Path) -> list[Figure]:
    return [figure(work, kind, floor) for kind, floor in (("", 0.5), (SRCSET, 0.5), (FIGURES, None), (WAT, None))]


def figure(work: Path, kind: str, floor: float | None) -> Figure:
    archive = work / "pages.warc.gz"
    size = write_archive(archive, PAGES, kind)
    if kind == WAT:
        archive = wat_of(archive, work / "pages.warc.wat.gz")
        size = read_only(archive)
    reading = crawling = [float("inf")] * 2
    for _ in range(ROUNDS):  # in turn, so that both meet the same noise
        reading = list(map(min, reading, seconds(lambda: read_only(archive))))
        crawling = list(map(min, crawling, seconds(lambda: crawl([str(archive)], work / "pairs.parquet"))))
    pairs = pq.read_metadata(work / "pairs.parquet").num_rows
    speeds = f"{size / crawling[0] / 1e6:,.0f} MB/s against {size / reading[0] / 1e6:,.0f} MB/s of pages"
    detail = (
        f"{PAGES:,} pages of {size / PAGES / 1000:.0f} kB, {pairs:,} pairs, one process: {speeds}; "
        f"{reading[1] / crawling[1]:.2f} in processor time; the Parquet file is written"
    )
    name = f"curate crawl against only reading the records{kind and f', {kind}'}"
    return Figure(name, reading[0] / crawling[0], "x", at_least=floor, detail=detail)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """By the clock, and of the processor."""
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - cpu


def read_only(archive: Path) -> int:
    """Reads every record's content, as decoded as a crawl has it."""
    with archive.open("rb") as stream:
        return sum(len(record.reader.read()) for record in ArchiveIterator(stream, auto_decode="all"))


def write_archive(archive: Path, pages: int, kind: str = "") -> int:
    """An archive of generated pages, their images of a kind; the bytes of their HTML."""
    rng = random.Random(7)
    words = ["".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4))) for _ in range(5000)]
    size = 0
    with archive.open("wb") as out:
        writer = WARCWriter(out, gzip=True)
        for number in range(pages):
            url = f"http://site{number % 40}.example.com/articles/{number}.html"
            request = StatusAndHeaders(f"GET /articles/{number}.html HTTP/1.1", [("Host", "x")], is_http_request=True)
            writer.write_record(writer.create_warc_record(url, "request", http_headers=request))
            html = page(rng, words, number).encode()
            if kind == SRCSET:
                html = html.replace(
                    b' loading="lazy"', b' loading="lazy" srcset="/s/1.jpg?w=320 320w, /s/2.jpg?w=1280 1280w"'
                )
            elif kind == FIGURES:
                caption = f"<figcaption>{' '.join(rng.choices(words, k=8))}</figcaption></figure>".encode()
                html = html.replace(b"<img ", b"<figure><img ").replace(b' loading="lazy">', b">" + caption)
            size += len(html)
            headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(html)))]
            line = StatusAndHeaders("200 OK", headers, protocol="HTTP/1.1")
            writer.write_record(writer.create_warc_record(url, "response", io.BytesIO(html), http_headers=line))
    return size


def page(rng: random.Random, words: list[str], number: int) -> str:
    """One page: a head with metas, styles and scripts, a menu, and paragraphs with links and images."""

    def text(count: int) -> str:
        return " ".join(rng.choices(words, k=count))

    def link() -> str:
        return f'<a class="link {rng.choice(words)}" href="/{rng.choice(words)}/{rng.randrange(10**6)}">{text(3)}</a>'

    script = "".join(f"var {rng.choice(words)}{n}={{a:'{rng.choice(words)}',b:{rng.random()}}};\n" for n in range(220))
    style = "".join(f".{rng.choice(words)}-{n}{{margin:{rng.randrange(99)}px;color:#fff}}\n" for n in range(160))
    menu = "".join(f'<li class="item"><span>{link()}</span></li>\n' for _ in range(90))
    body = []
    for place in range(IMAGES):
        address = f"/media/{rng.choice(words)}/{rng.randrange(10**6)}-{rng.choice(words)}.jpg"
        alt = f'alt="{text(6)}"' if place % 2 else 'alt=""'
        words_and_links = f"{text(60)} {link()} {text(40)} <em>{text(2)}</em> {link()}"
        image = f'<img class="photo" src="{address}" {alt} width="640" height="480" loading="lazy">'
        items = "".join(f"<li>{link()}</li>" for _ in range(6))
        body.append(
            f'<div class="row"><div class="card"><h2>{text(4)}</h2>\n<p>{words_and_links}</p></div>\n{image}'
            f"<ul>{items}</ul></div><!-- row {place} -->\n"
        )
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{text(6)}</title>\n'
        f'<meta name="description" content="{text(20)}"><meta property="og:title" content="{text(5)}">'
        f'<meta property="og:image" content="https://example.com/og/{number}.jpg"><link rel="stylesheet" href="/a.css">'
        f"<style>{style}</style><script>{script}</script></head><body><ul>{menu}</ul>{''.join(body)}"
        f"<script>{script[:4000]}</script></body></html>"
    )
