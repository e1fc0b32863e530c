"""WAT records read in parts, by compiled code, against the same records read as a whole."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.acquire.html import TEXTS
from curate.acquire.html_pairs import add_wat
from curate.acquire.pairs import SCHEMA
from curate.acquire.pairs_batch import PairBatch
from curate.acquire.warc_wat import read_wat
from tests.curate.test_acquire_html_pairs import ALTS, SOURCES
from tests.running import uncompiled

Json = dict[str, Any]


def record(links: Any, head: Json | None = None, *, links_first: bool = False, **more: Any) -> Json:
    """An envelope as Common Crawl's extractor writes it."""
    page = {"Links": links, "Head": head or {}} if links_first else {"Head": head or {}, "Links": links}
    response = {
        "Response-Message": {"Status": "200", "Version": "HTTP/1.1", "Reason": "OK"},
        "Headers": {"content-type": "text/html", "x": '"Links":[{"path":"IMG@/src"}]'},
        "HTML-Metadata": page,
        "Entity-Digest": "sha1:X",
    }
    warc = {"WARC-Type": "response", "WARC-Target-URI": "http://example.com/a/b.html"}
    payload = {"HTTP-Response-Metadata": response, "Actual-Content-Type": "application/http; msgtype=response"}
    return {
        "Container": {"Filename": "x.warc.gz", "Compressed": True, "Offset": "7"},
        "Envelope": {"Payload-Metadata": payload, "Format": "WARC/1.0", "WARC-Header-Metadata": warc} | more,
    }


def written(envelope: Json, *, plain: bool = True, ascii_only: bool = False) -> bytes:
    separators = (",", ":") if plain else (", ", ": ")
    return json.dumps(envelope, separators=separators, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


def read(content: bytes, *, decoded: bool, apart: bool) -> tuple[str | None, list[Json], tuple[int, ...], bool]:
    """Why there are no rows, the rows, the counts, and whether the images were read apart."""
    wat = read_wat(content, decoded=decoded, apart=apart)
    if wat.reason is not None:
        return wat.reason, [], (), False
    batch = PairBatch()
    page = add_wat(batch, wat, texts=TEXTS, agent="curate")
    counts = (page.images, page.without_text, page.without_url)
    if not batch.count:
        return page.refused, [], (*counts, page.repeated), wat.scanned is not None
    columns, again = batch.columns()
    rows = pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA).to_pylist()
    return page.refused, rows, (*counts, again + page.repeated), wat.scanned is not None


def compare(content: bytes, decoded: bool = True) -> tuple[list[Json], bool]:
    """The rows, the same both ways, and whether the images were read apart."""
    whole = read(content, decoded=decoded, apart=False)
    found = read(content, decoded=decoded, apart=True)
    assert found[:3] == whole[:3]
    return found[1], found[3]


TRAPS = [
    '"IMG@/src"',
    '{"path":"IMG@/src","url":"/x.jpg","alt":"no"}',
    "}]",
    "\\",
    '\\"',
    "\\\\",
    "@",
    "a\nb\tc",
    "\u0001",
    "🙂",
]
TEXT = st.one_of(st.sampled_from([*ALTS, *TRAPS]), st.text(max_size=6))
PATHS = [
    "IMG@/src",
    "IMG@/longdesc",
    "A@/href",
    "LINK@/href",
    "AREA@/href",
    "STYLE/#text",
    "IMG",
    "A@/onclick",
    "FORM@/action",
]
LICENCES = ["http://creativecommons.org/licenses/by/4.0/", "/terms", "https://x.com/?u=creativecommons.org/"]


@st.composite
def links(draw: st.DrawFn) -> Any:
    link: Json = {"path": draw(st.sampled_from([*PATHS, "IMG@/src", "IMG@/src"]))}
    for name in draw(st.lists(st.sampled_from(["url", "alt", "title", "text", "rel", "n"]), unique=True, max_size=4)):
        if name == "url":
            link[name] = draw(st.one_of(st.sampled_from([*SOURCES, *LICENCES]), TEXT))
        elif name == "rel":
            link[name] = draw(st.sampled_from(["license", "nofollow License", "me", "licensed"]))
        else:
            link[name] = draw(st.one_of(TEXT, st.sampled_from([None, 7, [1, "]"], {"alt": "}"}, True])))
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from([link, dict(reversed(link.items())), 7, "IMG@/src", None, []]))
    return link


HEADS: list[Json] = [
    {},
    {
        "Title": "t",
        "Metas": [{"property": "og:image", "content": "/og.jpg"}, {"property": "og:title", "content": "R&amp;D"}],
    },
    {"Base": "/base/", "Metas": [{"name": "HTML@/lang", "content": "de"}, {"name": "Links", "content": "x"}]},
    {"Link": [{"path": "LINK@/href", "url": "/licence", "rel": "license"}], "Scripts": [{"url": "a"}]},
    {"Metas": [{"name": "robots", "content": "noai"}]},
]


@given(
    st.lists(links(), max_size=6),
    st.sampled_from(HEADS),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 7),
)
@example([{"path": "IMG@/src", "url": "a.jpg", "alt": "x"}], {}, True, False, True, 1)
@settings(deadline=None, max_examples=400)
def test_records_give_the_same_rows_both_ways(
    found: list[Any], head: Json, decoded: bool, ascii_only: bool, links_first: bool, spaced: int
) -> None:
    compare(written(record(found, head, links_first=links_first), plain=spaced > 0, ascii_only=ascii_only), decoded)


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_broken_records_give_no_more_than_whole_ones(data: st.DataObject) -> None:
    content = bytearray(written(record(data.draw(st.lists(links(), min_size=1, max_size=4)), HEADS[1])))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place : place + data.draw(st.integers(0, 3))] = data.draw(
        st.sampled_from([b'"', b"}", b"]", b"\\", b"\xff", b""])
    )
    whole = read(bytes(content), decoded=True, apart=False)
    found = read(bytes(content), decoded=True, apart=True)
    assert found[:3] == whole[:3] or whole[0] == "broken_record"  # the links in between are not all looked at


def test_what_extractors_write_is_read_apart() -> None:
    image = {"path": "IMG@/src", "url": "/a.jpg?w=1&h=2", "alt": 'R&amp;D "x" </b> 漢'}
    more = [{"path": "A@/href", "url": "http://creativecommons.org/licenses/by/4.0/", "rel": "license", "text": "}]"}]
    more += [{"path": "IMG@/longdesc", "url": "x"}, {"path": "IMG@/src", "url": "b.jpg"}] + [image] * 100
    content = written(record([image, *more])).replace(b"</", b"<\\/")
    rows, apart = compare(content)
    assert apart and len(rows) == 1
    assert rows[0]["caption"] == 'R&amp;D "x" </b> 漢'
    assert (rows[0]["url"], rows[0]["page_licence"]) == (
        "http://example.com/a.jpg?w=1&h=2",
        "http://creativecommons.org/licenses/by/4.0/",
    )
    rows, _ = compare(content, decoded=False)  # before September 2019: markup
    assert rows[0]["caption"] == 'R&D "x" </b> 漢'


@pytest.mark.parametrize("kind", ["request", "metadata", "warcinfo"])
def test_records_of_other_kinds_are_no_pages(kind: str) -> None:
    envelope = record([{"path": "IMG@/src", "url": "/a.jpg", "alt": "x"}])
    envelope["Envelope"]["WARC-Header-Metadata"]["WARC-Type"] = kind
    assert read_wat(written(envelope), apart=True).reason == ""
    assert read_wat(written(envelope, plain=False), apart=True).reason == ""


def test_links_in_another_place_are_not_the_pages() -> None:
    image = {"path": "IMG@/src", "url": "/a.jpg", "alt": "x"}
    envelope = record([{"path": "IMG@/src", "url": "/b.jpg", "alt": "y"}])
    elsewhere = {"Envelope": {"HTML-Metadata": {"Links": [image]}} | envelope["Envelope"]}
    rows, apart = compare(written(elsewhere))
    assert [row["caption"] for row in rows] == ["y"] and not apart


def test_no_index_is_beyond_its_array() -> None:
    """The compiled functions as plain Python, where it raises."""
    told = uncompiled("-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", __file__, "-k", "both_ways")
    assert told.returncode == 0, told.stdout[-2000:]
