"""Pairs in columns, by compiled code, against the same pages read image by image in Python."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.acquire.html import TEXTS, PageImages, read_page
from curate.acquire.html_addresses import UNSURE
from curate.acquire.html_pairs import add_page
from curate.acquire.html_srcset import NONE, largest_in
from curate.acquire.html_text import attribute_text
from curate.acquire.html_urls import largest_candidate
from curate.acquire.pairs import SCHEMA, pair_uid
from curate.acquire.pairs_batch import PairBatch
from tests.running import uncompiled

PAGE = "http://example.com/blog/post.html"
URLS = [
    PAGE,
    "https://example.com",
    "http://example.com/a/../b/c",
    "http://[::1]/x",
    "http://e.com/a/?q=/b",
    "HTTP://E.com/",
]


def in_columns(html: bytes, url: str, charset: str | None) -> tuple[list[dict], PageImages, int]:
    """Rows, counts, and images that came again."""
    batch = PairBatch()
    page = add_page(batch, html, url, charset, headers=(), texts=TEXTS, agent="curate")
    if not batch.count:
        return [], page, 0
    columns, again = batch.columns()
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA).to_pylist(), page, again


def compare(html: bytes, url: str = PAGE, charset: str | None = "utf-8") -> list[dict]:
    """The rows, the same both ways; so are all counts."""
    one_by_one = read_page(html, url, charset)
    rows, page, again = in_columns(html, url, charset)
    assert rows == [pair.row() for pair in one_by_one.pairs]
    wanted = (one_by_one.images, one_by_one.without_text, one_by_one.without_url, one_by_one.refused)
    assert (page.images, page.without_text, page.without_url, page.refused) == wanted
    assert again == one_by_one.repeated
    return rows


ALTS = [
    "a star",
    "&nbsp;x",
    "a  b\t c",
    " ",
    "R&amp;D",
    "R&D",
    "&copy 2",
    "a &amp;&quot;b&quot; &#39;c",
    "&lt;b&gt;",
    "é",
    "Größe „x“",
    "\u00a0x\u00a0",
    "a\u200bb",
    "\u2009y",
    "漢字 表",
    "😀 ok",
    "\x00x",
    "\x7f",
    "&#233;",
    "&eacute;",
    "a&b=c",
    "&",
    "&&amp;",
    "\x85",
    "x\ufeff",
]
SOURCES = [
    "a.jpg",
    "/b.jpg",
    "../c.jpg",
    "./d.jpg",
    "//cdn.example.com/e.jpg",
    "http://x.com/f.jpg",
    "https://X.com/g.jpg",
    "i/../h.jpg",
    "/a//b.jpg",
    "?q=1",
    "/i?a=1&amp;b=2",
    "/i?a=1&b=2&copy=3",
    "/i?a=1&copy",
    "#top",
    "/j.jpg#top",
    "data:image/gif;base64,R0",
    " a b.jpg ",
    "/k%2f.jpg",
    "/k%2F.jpg",
    "a:b.jpg",
    "a/b:c.jpg",
    "ä.jpg",
    "http://x/l.jpg",
    "http://127.0.0.1:80/m.jpg",
    "http://-x.com/n",
    "http://x.c0m/o",
    "/",
    "/dir/",
    "/.hid",
    "~u/x.jpg",
    "\\p.jpg",
    "javascript:x",
    "http:q.jpg",
    "mailto:a@b.c",
    "http://x.com",
    "http://x.com/?a",
    "//x.com",
    "/a?b?c",
    "\x01a.jpg",
    "\tr.jpg",
    ",s.jpg",
    "/%zz",
    "http://user@x.com/t",
]
ATTRIBUTES = [
    'srcset="{} 1x, /z.jpg 2x"',
    'data-src="{}"',
    "data-original='{}'",
    "data-lazy-src={}",
    "data-srcset='{} 100w'",
    "src='{}'",
    'srcset=""',
    "src",
    "data-src=' '",
    "width=300px",
    "width=' 20 '",
    "height=100%",
    "height=99999999",
    "width=0",
    "height=&#50;",
    "alt=again",
    "title='a > b'",
    "=x",
    "/",
]
WRAPS = [
    "{}",
    "<figure>{}<figcaption>the <b>caption</b></figcaption></figure>",
    "<figure>{}</figure>",
    "<figure>{}<figcaption></figcaption>",
    "<picture><source srcset='/w.webp 2x'>{}</picture>",
    "<noscript>{}</noscript>",
    "<template>{}</template>",
    "<!-- {} -->",
    '<p title="{}">',
    "<figure><figcaption>first</figcaption>{}",
    "</figure>{}",
    "<template><template></template>{}</template>",
    "<svg><image href=x />{}</svg>",
    "<script>{}</script>",
    "<script><!--<script>{}</script>--></script>",
    "<base href='/other/'>{}",
    "<!--!>{}-->",
]


@st.composite
def images(draw: st.DrawFn) -> str:
    quote = draw(st.sampled_from(["'", '"']))
    alt = draw(st.one_of(st.sampled_from(ALTS), st.text(max_size=8))).replace(quote, "")
    source = draw(st.sampled_from(SOURCES)).replace(quote, "")
    more = [draw(st.sampled_from(SOURCES)) for _ in range(2)]
    chosen = draw(st.lists(st.sampled_from(ATTRIBUTES), max_size=3))
    rest = " ".join(attribute.strip().replace("{}", more[k % 2]) for k, attribute in enumerate(chosen))
    image = f"<img alt={quote}{alt}{quote} {rest} src={quote}{source}{quote}>"
    return draw(st.sampled_from(WRAPS)).strip().replace("{}", image)


@given(st.lists(images(), max_size=5), st.sampled_from(URLS), st.sampled_from(["utf-8", "latin-1", None]))
@example(["<img alt=x src=a.jpg>" * 3], PAGE, "utf-8")
@settings(deadline=None, max_examples=80)
def test_pages_give_the_same_rows_both_ways(pieces: list[str], url: str, charset: str | None) -> None:
    compare("".join(pieces).encode("utf-8", "replace"), url, charset)


@given(st.lists(images(), min_size=1, max_size=3), st.data())
@settings(deadline=None, max_examples=80)
def test_broken_bytes_give_the_same_rows_both_ways(pieces: list[str], data: st.DataObject) -> None:
    html = bytearray("".join(pieces).encode("utf-8", "replace"))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(html) - 1))
        html[place : place + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"<", b">", b"'", b'"', b"=", b"\xff", b"&"])
        )
    compare(bytes(html))


WORDS = [
    "a.jpg",
    "/b,c.jpg",
    "320w",
    "1.5x",
    "2x",
    "0x",
    "1.w",
    "1.00001w",
    "12345678w",
    "x",
    "w",
    "data:a",
    "DATA:",
    "7h",
]
MARKS = [",", " ", ", ", "\t", "\n", "\x0b", "\x1c", ",,", "&", "&#44;", "&amp;", "&comma;", "é", ""]


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(MARKS)), max_size=8), st.booleans())
@settings(deadline=None, max_examples=500)
def test_srcsets_have_the_same_largest_candidate_both_ways(parts: list[tuple[str, str]], plain: bool) -> None:
    text = "".join(word + (mark if not plain or mark in ", " else ", ") for word, mark in parts)
    data = np.frombuffer(text.encode(), np.uint8)
    start, end = largest_in(data, 0, data.size)
    assert start != UNSURE or not plain
    if start != UNSURE:
        found = None if start == NONE else attribute_text(bytes(data[start:end]).decode())
        assert found == largest_candidate(attribute_text(text))


def test_every_kind_of_address_and_text() -> None:
    for url in URLS:
        for source in SOURCES:
            compare(f'<img alt=x src="{source.strip()}">'.encode(), url)
    for alt in ALTS:
        rows = compare(f'<img alt="{alt}" src=a.jpg>'.encode("utf-8", "replace"))
        assert all(row["uid"] == pair_uid(row["url"], row["caption"]) for row in rows)


@pytest.mark.parametrize("length", [1, 60, 61, 62, 125, 126, 127, 128, 129, 255, 256, 257, 1000, 4096, 4097, 9000])
def test_uids_of_texts_of_any_length(length: int) -> None:
    (row,) = compare(f"<img src=http://e.com/a.jpg alt='{'x' * length}'>".encode())
    assert row["uid"] == pair_uid("http://e.com/a.jpg", "x" * min(length, 4096))


def test_a_page_that_outgrows_every_table() -> None:
    html = "".join(
        f"<figure><img src=/{n}.jpg alt='image {n}'></figure><img src=/{n}.jpg alt='image {n}'>" for n in range(10_000)
    )
    assert len(compare(html.encode())) == 10_000


CASES = [
    "".join(wrap.replace("{}", f"<img alt='{alt}' src={source} width=7>") for wrap in WRAPS)
    for alt, source in zip(ALTS[:8], SOURCES[:8], strict=True)
]
CASES += [
    "<",
    "<i",
    "<img",
    "<img alt",
    "<img alt=",
    "<img alt='",
    "</",
    "<!",
    "<!-",
    "<!--",
    "<!-->",
    "<!--->",
    "<!--a--",
    "<script>",
    "<script></",
]
CASES += [
    "<script><!--",
    "<script><!--<script>",
    "<title>",
    "<meta name=og:",
    "<a rel=license href=http",
    "<img src=http:// alt=x>",
    "&",
    "</figure>",
]
CASES += [
    "<img src=http://x alt=&>",
    "<img src='' alt='\xc3'>",
    "<img src=h alt=\xe2\x80>",
    "<figure><figcaption>",
    "<a href=http://creativecommons>",
    '<figure><img alt=x src=a><figcaption>a <b>b</b> &amp; <a href="x">c</a></figcaption></figure>',
    "<figure><img src=a><figcaption>&am<b>p; &<i",
    "<img alt=x src=a srcset='s.jpg 320w, l.jpg 1280.5w, , m.jpg 2x 10w,'>",
    "<img alt=x srcset=s.jpg,><img alt=x srcset='a &#1'><img alt=x srcset='data:,a 2x'>",
]


def test_no_index_is_beyond_its_array() -> None:
    """The compiled functions as plain Python, where it raises, on each page and each of its beginnings."""
    pages = [case[:end].encode() for case in CASES for end in {len(case), len(case) // 2, len(case) - 1} if end > 0]
    code = (
        "import json, sys\n"
        "from tests.curate.test_acquire_html_pairs import CASES, PAGE, in_columns\n"
        "for page in json.load(sys.stdin):\n"
        "    print(json.dumps(in_columns(page.encode('latin-1'), PAGE, 'utf-8')[0]))\n"
    )
    told = uncompiled("-W", "ignore", "-c", code, stdin=json.dumps([page.decode("latin-1") for page in pages]))
    assert told.returncode == 0, told.stderr[-2000:]
    for page, line in zip(pages, told.stdout.splitlines(), strict=True):
        assert json.loads(line) == json.loads(json.dumps(in_columns(page, PAGE, "utf-8")[0])), page
