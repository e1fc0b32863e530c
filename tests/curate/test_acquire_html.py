"""extract_pairs: what is found on pages, tidy and broken."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from curate.acquire.html import ALL_TEXTS, absolute_url, extract_pairs, largest_candidate, read_page
from curate.acquire.html_urls import _normalised
from curate.acquire.pairs import pair_uid

PAGE = "http://example.com/blog/post.html"


def found(html: str, charset: str | None = "utf-8") -> list[tuple[str, str, str]]:
    pairs = extract_pairs(html.encode(), PAGE, charset)
    return [(pair.url, pair.caption, pair.caption_source) for pair in pairs]


def test_alt_text_with_folded_white_space_and_page_facts() -> None:
    html = '<html lang="EN-gb"><img src="../a.jpg" width="300px" height=200 alt=" a&amp;b \n\t red  star ">'
    (pair,) = extract_pairs(html.encode(), PAGE, None)
    assert (pair.url, pair.caption) == ("http://example.com/a.jpg", "a&b red star")
    assert (pair.page_language, pair.width_attribute, pair.height_attribute) == ("en-gb", 300, 200)
    assert pair.row()["uid"] == pair_uid(pair.url, pair.caption)


def test_figcaption_and_alt_are_two_pairs_unless_equal() -> None:
    html = "<figure><a><img src=a.jpg alt='one'></a><figcaption>two <b>words</b></figcaption></figure>"
    a = "http://example.com/blog/a.jpg"
    assert found(html) == [(a, "one", "alt"), (a, "two words", "figcaption")]
    assert found(html.replace("two <b>words</b>", "one")) == [(a, "one", "alt")]


def test_images_without_text_or_address_are_counted_not_emitted() -> None:
    html = '<img src=a.jpg><img src=b.jpg alt=" "><img alt="no address"><img src="data:x" alt="inline">'
    page = read_page(html.encode(), PAGE)
    assert (page.images, page.without_text, page.without_url, page.pairs) == (4, 2, 2, [])


def test_the_same_pair_twice_on_a_page_is_emitted_once() -> None:
    page = read_page(b"<img src=a.jpg alt=x><img src=./a.jpg alt=x><img src=a.jpg alt=y>", PAGE)
    assert [pair.caption for pair in page.pairs] == ["x", "y"]
    assert page.repeated == 1


@pytest.mark.parametrize(
    ("srcset", "largest"),
    [
        ("s.jpg 320w, l.jpg 1280w,m.jpg 640w", "l.jpg"),
        ("a.jpg, b.jpg 2x", "b.jpg"),
        ("a.jpg 1.5x, b.jpg 1x", "a.jpg"),
        ("i/w_300,h_200/a.jpg 300w, i/w_600,h_400/a.jpg 600w", "i/w_600,h_400/a.jpg"),
        ("only.jpg", "only.jpg"),
        (" , ,a.jpg,", "a.jpg"),
        ("data:image/png;base64,AAAA 900w, a.jpg 1w", "a.jpg"),
        ("a.jpg -5w, b.jpg 99999999999999999999w, c.jpg 2w", "c.jpg"),
        ("", None),
        (",,,", None),
    ],
)
def test_largest_candidate(srcset: str, largest: str | None) -> None:
    assert largest_candidate(srcset) == largest


def test_lazy_loading_and_picture() -> None:
    assert found('<img src="data:image/gif;base64,R0" data-src="real.jpg" alt=x>') == [
        ("http://example.com/blog/real.jpg", "x", "alt")
    ]
    assert found('<img src="s.jpg" data-srcset="s.jpg 1x, l.jpg 2x" alt=x>')[0][0].endswith("/l.jpg")
    picture = '<picture><source srcset="l.webp 2x, s.webp 1x"><img alt=x></picture>'
    assert found(picture)[0][0] == "http://example.com/blog/l.webp"


def test_base_href_is_honoured_and_a_hostile_one_is_not() -> None:
    assert found("<base href='/img/'><img src=a.jpg alt=x>")[0][0] == "http://example.com/img/a.jpg"
    assert found("<base href='file:///etc/'><img src=a.jpg alt=x>")[0][0] == "http://example.com/blog/a.jpg"


@pytest.mark.parametrize(
    "reference",
    [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "ftp://example.com/a.jpg",
        "data:image/png;base64,AAAA",
        "http://user:secret@example.com/a.jpg",
        "http://[::1/a.jpg",
        "http://example.com:port/a.jpg",
        "x" * 5000,
    ],
)
def test_addresses_that_are_refused(reference: str) -> None:
    assert absolute_url(reference, PAGE) is None


def test_addresses_become_ascii_without_fragment() -> None:
    assert absolute_url(" ä b.jpg#top ", PAGE) == "http://example.com/blog/%C3%A4%20b.jpg"
    assert absolute_url("//münchen.example/a.jpg", PAGE) == "http://xn--mnchen-3ya.example/a.jpg"


@pytest.mark.parametrize(
    ("html", "charset"),
    [
        ("<img src=a alt='Größe'>".encode("latin-1"), "iso-8859-1"),
        ("<meta charset=iso-8859-1><img src=a alt='Größe'>".encode("latin-1"), None),
        ("<img src=a alt='Größe'>".encode(), "no-such-charset"),
        ("\ufeff<img src=a alt='Größe'>".encode(), "iso-8859-1"),
        ("\ufeff<img src=a alt='Größe'>".encode("utf-16-le"), None),
    ],
)
def test_charsets(html: bytes, charset: str | None) -> None:
    assert [pair.caption for pair in extract_pairs(html, PAGE, charset)] == ["Größe"]


def test_broken_markup_still_gives_its_pairs() -> None:
    html = "<div><b><IMG SRC=/a.jpg ALT='one' border=0 <i></b></div></td><figure><img src=b.jpg><figcaption>two<p>"
    assert [caption for _, caption, _ in found(html)] == ["one", "two"]


@pytest.mark.parametrize(
    "html",
    [
        b"",
        b"\x00\xff\xfe<img",
        b"<img src=a alt='" + b"x" * 100_000,
        b"<img src=a alt='&#xD800;&#0;\x00'>",
        b"<figure>" * 10_000 + b"<img src=a alt=x>",
        b"<figure>" + b"<img src=a>" * 20_000 + b"<figcaption>" + b"y " * 100_000,
        b"<div>" * 100_000 + b"<img src=a alt=x>",
        b"<img srcset='" + b"a 1w, " * 200_000 + b"' alt=x>",
    ],
    ids=["empty", "binary", "open", "surrogate", "figures", "captions", "deep", "srcset"],
)
def test_hostile_pages_end_soon_and_give_valid_text(html: bytes) -> None:
    started = time.monotonic()
    for pair in extract_pairs(html, PAGE, None):
        assert 0 < len(pair.caption.encode("utf-8")) <= 4 * 4096
    assert time.monotonic() - started < 10


def test_a_page_with_10_000_images_gives_them_all() -> None:
    html = "".join(f"<p><img src=/{n}.jpg alt='image {n}'>" for n in range(10_000))
    assert [caption for _, caption, _ in found(html)] == [f"image {n}" for n in range(10_000)]


@pytest.mark.parametrize(
    "hidden",
    [
        "<!-- <img src=a alt=x> -->",
        "<!-- > <img src=a alt=x> --!>",
        "<script>'<img src=a alt=x>'</script >",
        "<STYLE>/*<img src=a alt=x>*/</STYLE>",
        "<title><img src=a alt=x></title>",
        "<textarea>\n<img src=a alt=x></textarea>",
        "<template><img src=a alt=x></template>",
        "<iframe><img src=a alt=x></iframe>",
        "<div title='<img src=a alt=x>'>",
        '<div title = "<b>it\'s</b> <img src=a alt=x>">',
        "<div data-a='>' <img src=a alt=x>",
        "<a href=<img src=a alt=x>",
        "<!-- '\" --><b title='<script>'>",
        "<imgs src=a alt=x>",
        "&lt;img src=a alt=x&gt;",
    ],
)
def test_what_a_browser_does_not_see_is_not_invented(hidden: str) -> None:
    assert [caption for _, caption, _ in found(f"{hidden}<p>it's \"<img src=b.jpg alt=seen>")] == ["seen"]
    assert found("<p>a < b, <img src=b.jpg alt=cut") == []


PIECES = [
    "<img src=a alt={}>",
    "<IMG\nALT='{}' src='b'/>",
    '<img alt="{}" src="c" alt=second title="a > b">',
    '<p title="it\'s">',
    "<a href='x' title='<img src=a alt={}>'>",
    "<!-- <img src=a alt={}> -->",
    "<!-->",
    "-->",
    "<!--",
    "<script>a < b && '<img src=a alt={}>' </script>",
    "<style>",
    "</style>",
    "<textarea>",
    "</textarea>",
    "<div \"'>",
    "<b a=''c='>'>",
    "it's \"quoted\" a = 'b' < c > d",
    "</div x='<img src=a alt={}>'>",
    "<noscript><img src=a alt={}></noscript>",
    "<",
    ">",
    '="',
    "'",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_images_are_those_of_the_tree_of_a_browser(pieces: list[str]) -> None:
    html = "<body>" + "".join(piece.replace("{}", f"n{place}") for place, piece in enumerate(pieces))
    tree = HTMLTree.parse(html)
    assert tree.document is not None
    seen = [image.getattr("alt") for image in tree.document.query_selector_all("img[alt]")[:]]
    assert [caption for _, caption, _ in found(html)] == seen


def test_references_in_attributes_are_those_of_attributes() -> None:
    html = "<img src='/i?a=1&copy=2&amp;b=3&lt=4' alt='&copy 2 &amp; &eacute;&#233;&#xD800; R&D'>"
    assert found(html) == [("http://example.com/i?a=1&copy=2&b=3&lt=4", "© 2 & éé\ufffd R&D", "alt")]


def test_open_graph_and_title() -> None:
    head = (
        "<title>The page</title><meta property=og:image content=/og.jpg><meta property=og:image content=/second.jpg>"
        "<meta property='og:image:width' content=1200><meta name=og:title content='A title'>"
        "<meta property=og:description content='What it is'>"
    )
    og = "http://example.com/og.jpg"
    assert found(head) == [(og, "A title", "og_title"), (og, "What it is", "og_description")]
    assert extract_pairs(head.encode(), PAGE)[0].width_attribute == 1200
    page = read_page(f"{head}<img src=/a.jpg><img src=/b.jpg alt=b>".encode(), PAGE, texts=("alt", "title"))
    assert [(pair.caption, pair.caption_source) for pair in page.pairs] == [
        ("The page", "title"),
        ("The page", "title"),
        ("b", "alt"),
    ]
    assert read_page(head.encode(), PAGE, texts=ALL_TEXTS).pairs[0].caption_source == "og_title"


@pytest.mark.parametrize(
    ("html", "licence"),
    [
        ("<a rel='license nofollow' href=/terms>terms</a>", "http://example.com/terms"),
        ("<link rel=license href=http://a.example/l>", "http://a.example/l"),
        (
            "<a href='https://creativecommons.org/licenses/by/4.0/'>CC</a>",
            "https://creativecommons.org/licenses/by/4.0/",
        ),
        ('<script type=application/ld+json>{"license": "https:\\/\\/a.example\\/l"}</script>', "https://a.example/l"),
        ("<!-- <a rel=license href=/terms> --><p>license", None),
        ("<script>'<a rel=license href=/terms>'</script>", None),
    ],
)
def test_the_licence_that_a_page_links(html: str, licence: str | None) -> None:
    (pair,) = extract_pairs(f"<img src=a alt=x>{html}".encode(), PAGE)
    assert pair.page_licence == licence


def test_the_language_of_the_server_counts_where_the_page_says_none() -> None:
    image = b"<img src=a alt=x>"
    assert read_page(image, PAGE, headers=[("content-language", "De")]).pairs[0].page_language == "de"
    assert read_page(image, PAGE, headers=[("content-language", "de, fr")]).pairs[0].page_language is None
    assert (
        read_page(b"<html lang=en>" + image, PAGE, headers=[("content-language", "de")]).pairs[0].page_language == "en"
    )


def test_figures_that_are_nested_or_never_closed() -> None:
    nested = (
        "<figure><figure><img src=a><figcaption>inner</figcaption></figure><img src=b><figcaption>outer</figcaption>"
        "</figure><img src=c>"
    )
    assert [(url[-1], caption) for url, caption, _ in found(nested)] == [("a", "inner"), ("b", "outer")]
    broken = "<div><figure><img src=a><figcaption>one</div><p>text</figcaption><p><img src=b>"
    assert [url[-1] for url, _, _ in found(broken)] == ["a"]
    assert found("<figure><img src=a><figcaption>one<br>two<!-- x -->s <b>3</b>")[0][1] == "one twos 3"


@given(st.text("ab/.?#%2F=&:;@~ é'", max_size=12))
def test_the_short_way_to_an_address_gives_what_the_long_one_gives(reference: str) -> None:
    for written in (reference, "/" + reference, "http://example.com/" + reference):
        assert absolute_url(written, PAGE) == _normalised(written, PAGE)


def test_hostile_tags_cost_linear_time() -> None:
    pieces = [b"<img ", b"<img alt='", b"<!--", b"<figure><figcaption>", b"<script>", b'<a b="<img alt=x>', b"='<img>"]
    started = time.process_time()
    for piece in [*pieces, b"<a rel=license ", b"<a rel=license>", b"<picture><img alt=x>"]:
        extract_pairs(piece * 50_000, PAGE)
    assert time.process_time() - started < 20
