"""Real captures of a served web as WARC files, what Common Crawl would write of them as WAT, and damage to both."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import random
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from curate.acquire.crawl import CrawlReport, crawl
from curate.acquire.fetch import FetchLimits
from curate.cli import run
from curate.demo.server import serve
from curate.demo.site import Site, write_site
from curate.errors import RequestError, WorkError
from tests.curate.test_spark import need_spark

PRIVATE = FetchLimits(allow_private=True, timeout=5, retries=0)


def write_warc(path: Path, answers: list[tuple[str, int, list[tuple[str, str]], bytes]], packed: bool = True) -> Path:
    """A WARC as an archiver writes it: a warcinfo, and a request and a response for each answer."""
    with path.open("wb") as out:
        writer = WARCWriter(out, gzip=packed)
        writer.write_record(writer.create_warcinfo_record(path.name, {"software": "test"}))
        for url, status, headers, body in answers:
            request = StatusAndHeaders("GET / HTTP/1.1", [("Host", "example.com")], is_http_request=True)
            writer.write_record(writer.create_warc_record(url, "request", http_headers=request))
            line = StatusAndHeaders(f"{status} X", headers, protocol="HTTP/1.1")
            writer.write_record(writer.create_warc_record(url, "response", io.BytesIO(body), http_headers=line))
    return path


def page(number: int, body: str, *headers: tuple[str, str]) -> tuple[str, int, list[tuple[str, str]], bytes]:
    content = body.encode()
    told = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(content))), *headers]
    return f"http://example.com/{number}/", 200, told, content


def numbered(count: int) -> list[tuple[str, int, list[tuple[str, str]], bytes]]:
    rng = random.Random(4)
    noise = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=3000)) for _ in range(count)]
    return [page(n, f"<p>{noise[n]}<img src=a.jpg alt='page {n}'>") for n in range(count)]


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def captions(sources: list[Path], folder: Path, **more: Any) -> tuple[list[str], CrawlReport]:
    report = crawl([str(source) for source in sources], folder / "pairs.parquet", **more)
    return [row["caption"] for row in rows(folder / "pairs.parquet")], report


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("web")
    return write_site(folder / "site", folder / "truth.parquet", samples=60, seed=5, workers=1)


@pytest.mark.parametrize("ending", ["warc", "warc.gz"])
def test_a_capture_gives_the_rows_of_a_live_crawl(
    site: Site, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The capture goes through warcio's own hook into the HTTP client, so the records are what came over the wire."""

    monkeypatch.setattr(http.client, "HTTPConnection", http.client.HTTPConnection)  # undoes what the import changes
    from warcio.capture_http import RecordingHTTPConnection, capture_http

    archive = tmp_path / f"pages.{ending}"
    with serve(site.folder) as origin:
        urls = [url for url in site.page_urls(origin) if "/members/" not in url]
        with archive.open("wb") as out, capture_http(WARCWriter(out, gzip=ending.endswith("gz"))):
            for url in [*urls, f"{origin}/logo.png", f"{origin}/missing.html"]:
                connection = RecordingHTTPConnection(origin.removeprefix("http://"))
                connection.request("GET", url.removeprefix(origin))
                connection.getresponse().read()
                connection.close()
        crawl(urls, tmp_path / "live.parquet", PRIVATE)
    report = crawl([str(archive)], tmp_path / "archived.parquet")
    live = rows(tmp_path / "live.parquet")
    assert live and rows(tmp_path / "archived.parquet") == live
    truth = pq.read_table(site.truth).to_pylist()
    assert [row["caption"] for row in live] == [row["caption"] for row in truth]
    assert report.failures == {"http_4xx": 1, "not_html": 1}


def wat_of(warc: Path, out: Path) -> Path:
    """What Common Crawl's extractor says of the responses of a WARC; of links only images and anchors."""
    from resiliparse.parse.html import HTMLTree

    with out.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for record in ArchiveIterator(warc.open("rb"), record_types=WarcRecordType.response):
            tree = HTMLTree.parse_from_bytes(record.reader.read())
            links = [
                {"path": f"{node.tag.upper()}@/{name}", "url": node.getattr(name)}
                | {other: node.getattr(other) for other in ("alt", "rel") if node.getattr(other) is not None}
                for tag, name in (("img", "src"), ("a", "href"))
                for node in tree.document.query_selector_all(f"{tag}[{name}]")[:]
            ]
            metas = [
                {name: node.getattr(name) for name in ("name", "property", "content") if node.getattr(name)}
                for node in tree.document.query_selector_all("meta")[:]
            ]
            http = {
                "Response-Message": {"Status": str(record.http_headers.status_code), "Version": "HTTP/1.1"},
                "Headers": record.http_headers.to_dict(),
                "HTML-Metadata": {"Head": {"Title": tree.title, "Metas": metas}, "Links": links},
            }
            url = record.headers["WARC-Target-URI"]
            envelope = {
                "WARC-Header-Metadata": {"WARC-Type": "response", "WARC-Target-URI": url},
                "Payload-Metadata": {"HTTP-Response-Metadata": http},
            }
            record = {"Container": {"Filename": warc.name}, "Envelope": envelope}
            content = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()
            told = {"payload": io.BytesIO(content), "warc_content_type": "application/json"}
            writer.write_record(writer.create_warc_record(url, "metadata", **told))
    return out


def test_a_wat_gives_what_it_holds(tmp_path: Path) -> None:
    html = (
        "<html lang=en><title>Stars</title><meta property='og:image' content='/og.jpg'>"
        "<meta property=og:title content='The stars'>"
        "<img src=a.jpg alt='a red star'><img src=b.jpg><img alt='no address'>"
        "<a rel='nofollow license' href=https://creativecommons.org/licenses/by/4.0/>CC BY</a>"
    )
    refused = page(2, "<meta name=robots content='noai'><img src=a.jpg alt=x>")
    warc = write_warc(tmp_path / "a.warc.gz", [page(1, html), refused, page(3, "<img src=c.jpg alt=three>")])
    wat = wat_of(warc, tmp_path / "a.warc.wat.gz")
    crawl([str(warc)], tmp_path / "warc.parquet")
    report = crawl([str(wat)], tmp_path / "wat.parquet")
    found, whole = rows(tmp_path / "wat.parquet"), rows(tmp_path / "warc.parquet")
    columns = ("uid", "url", "caption", "caption_source", "page_url", "page_licence")
    assert [[row[name] for name in columns] for row in found] == [[row[name] for name in columns] for row in whole]
    assert [(row["caption"], row["caption_source"]) for row in found] == [
        ("The stars", "og_title"),
        ("a red star", "alt"),
        ("three", "alt"),
    ]
    assert found[0]["page_licence"] == "https://creativecommons.org/licenses/by/4.0/"
    assert report.failures == {"noai": 1}


def test_a_wat_that_is_no_json_is_counted(tmp_path: Path) -> None:
    wat = tmp_path / "x.wat"
    with wat.open("wb") as file:
        writer = WARCWriter(file, gzip=False)
        good = {"WARC-Header-Metadata": {"WARC-Type": "response", "WARC-Target-URI": "http://e.com/"}}
        html = {"Links": [{"path": "IMG@/src"}, 7], "Head": []}
        answer = {"Response-Message": {"Status": "200"}, "HTML-Metadata": html}
        http = {"Payload-Metadata": {"HTTP-Response-Metadata": answer}}
        contents = [b"{", b"[]", b'{"Envelope": 3}', json.dumps({"Envelope": good}).encode()]
        contents.append(json.dumps({"Envelope": good | http}).encode())
        for content in contents:
            told = {"payload": io.BytesIO(content), "warc_content_type": "application/json"}
            writer.write_record(writer.create_warc_record("http://e.com/", "metadata", **told))
    report = crawl([str(wat)], tmp_path / "pairs.parquet")
    assert (report.pages_read, report.failures) == (1, {"broken_record": 3, "protocol": 1})


def members(path: Path) -> list[bytes]:
    """The gzip members of a file."""
    places = [record.stream_pos for record in ArchiveIterator(path.open("rb"))]
    data = path.read_bytes()
    return [data[start:end] for start, end in zip(places, [*places[1:], len(data)], strict=True)]


def test_damage_costs_the_damaged_records_only(tmp_path: Path) -> None:
    whole = members(write_warc(tmp_path / "whole.warc.gz", numbered(6)))  # warcinfo, then request and response of each
    flipped = bytearray(whole[6])  # the response of page 2
    flipped[900:920] = b"\xff" * 20
    crc = whole[10][:-8] + b"abcd" + whole[10][-4:]  # page 4
    for damaged, lost in (
        ({6: bytes(flipped)}, {2}),
        ({6: b""}, {2}),
        ({6: b"junk" * 100}, {2}),
        ({6: whole[6][:700]}, {2}),
        ({10: crc}, {4}),
        ({6: bytes(flipped), 10: whole[10][:700]}, {2, 4}),
    ):
        path = tmp_path / "damaged.warc.gz"
        path.write_bytes(b"".join(damaged.get(place, member) for place, member in enumerate(whole)))
        found, report = captions([path], tmp_path)
        assert found == [f"page {number}" for number in range(6) if number not in lost]
        broken = sum(damage != b"" for damage in damaged.values())
        assert report.failures == ({"broken_warc": broken} if broken else {})


def test_a_file_that_was_cut_anywhere_gives_its_whole_records(tmp_path: Path) -> None:
    for name, packed in (("a.warc.gz", True), ("a.warc", False)):
        path = write_warc(tmp_path / name, numbered(3), packed)
        data = path.read_bytes()
        for cut in (0.98, 0.9, 0.8, 0.75, 0.7, 0.5, 0.4):
            path.write_bytes(data[: int(len(data) * cut)])
            found, report = captions([path], tmp_path)
            assert found == [f"page {number}" for number in range(len(found))]
            assert 1 <= len(found) <= 3
            if packed or cut in (0.98, 0.9, 0.8, 0.5):
                assert sum(report.failures.values()) >= 1, cut


def test_archives_that_cannot_be_read_do_not_end_a_run(tmp_path: Path) -> None:
    good = write_warc(tmp_path / "good.warc.gz", numbered(2))
    empty, junk = tmp_path / "empty.warc.gz", tmp_path / "junk.warc"
    empty.write_bytes(b"")
    junk.write_bytes(b"nothing of the kind" * 100)
    found, report = captions([junk, good, empty], tmp_path)
    assert (found, report.failures) == (["page 0", "page 1"], {"broken_warc": 1})
    with pytest.raises(RequestError, match="holds no WARC"):
        captions([empty], tmp_path)


@pytest.mark.parametrize(
    ("header", "body", "reason"),
    [
        (("X-Robots-Tag", "noai, noimageai"), "", "noai"),
        (("X-Robots-Tag", "noimageai"), "", "noimageai"),
        (("x-robots-tag", "curate: NOINDEX"), "", "noindex"),
        (("X-Robots-Tag", "none"), "", "noindex"),
        (("tdm-reservation", "1"), "", "tdm_reservation"),
        (("X", ""), "<META NAME=Robots CONTENT='follow, NoImageIndex'>", "noimageindex"),
        (("X", ""), "<meta name=robots content=noml>", "noml"),
        (("X", ""), "<meta name=curate content='noai'>", "noai"),
        (("X", ""), "<meta name=tdm-reservation content=1>", "tdm_reservation"),
        (("X-Robots-Tag", "otherbot: noai, noindex"), "<meta name=robots content=index>", None),
        (("X-Robots-Tag", "max-snippet: 20"), "<!-- <meta name=robots content=noai> -->", None),
        (("tdm-reservation", "0"), "<p>noai <b title='<meta name=robots content=noai>'>", None),
    ],
)
def test_opt_outs_are_honoured_and_counted(
    tmp_path: Path, header: tuple[str, str], body: str, reason: str | None
) -> None:
    asked = page(1, f"{body}<img src=a.jpg alt=asked>", header)
    found, report = captions([write_warc(tmp_path / "a.warc.gz", [asked, *numbered(1)])], tmp_path)
    assert found == (["page 0"] if reason else ["asked", "page 0"])
    assert report.failures == ({reason: 1} if reason else {})


def test_one_row_of_an_address_or_uid(tmp_path: Path) -> None:
    first = page(1, "<img src=/a.jpg alt=one><img src=/b.jpg alt=two>")
    second = page(2, "<img src=/b.jpg alt=other><img src=/a.jpg alt=one><img src=/c.jpg alt=three>")
    files = [write_warc(tmp_path / f"{n}.warc.gz", [answer]) for n, answer in enumerate((first, second))]
    assert captions(files, tmp_path)[0] == ["one", "two", "other", "one", "three"]
    found, report = captions(files, tmp_path, distinct="url")
    assert (found, report.pairs, report.not_distinct) == (["one", "two", "three"], 3, 2)
    assert captions(files, tmp_path, distinct="uid")[0] == ["one", "two", "other", "three"]


def many_files(folder: Path) -> list[Path]:
    answers = numbered(12)
    files = [write_warc(folder / f"{n}.warc.gz", answers[2 * n : 2 * n + 2]) for n in range(5)]
    (folder / "cut.warc.gz").write_bytes(files[0].read_bytes()[:-300])
    return [*files, folder / "cut.warc.gz"]


def test_workers_write_the_rows_of_one_process(tmp_path: Path) -> None:
    files = many_files(tmp_path)
    found, report = captions(files, tmp_path)
    again, told = captions(files, tmp_path, workers=2, distinct="url")
    assert found == [*(f"page {n}" for n in range(10)), "page 0"]
    assert again == found[:10] and told.not_distinct == 1
    assert told.failures == report.failures and sum(report.failures.values()) >= 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.spark
def test_spark_writes_the_rows_of_one_process(tmp_path: Path) -> None:
    need_spark()
    files = [str(path) for path in many_files(tmp_path)]
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    assert run(["crawl", *files, "-o", str(here)]) == 0
    assert run(["crawl", *files, "-o", str(there), "--engine", "spark", "--workers", "2"]) == 0
    assert pq.read_table(there).equals(pq.read_table(here)) and len(rows(here)) == 11
    with pytest.raises(RequestError, match="--engine spark"):
        crawl(["http://example.com/"], there, engine="spark")


class _Ranges(SimpleHTTPRequestHandler):
    """Serves one file, hangs up after 4,000 bytes of every answer, and knows ranges."""

    data = b""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(self.data) - start))
        self.end_headers()
        self.wfile.write(self.data[start : start + 4000])
        self.close_connection = True


@pytest.fixture
def ranges(tmp_path: Path) -> Iterator[str]:
    _Ranges.data = write_warc(tmp_path / "served.warc.gz", numbered(6)).read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Ranges)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/served.warc.gz"
    server.shutdown()
    server.server_close()


def test_archives_over_http_go_on_where_the_connection_broke(ranges: str, tmp_path: Path) -> None:
    limits = FetchLimits(allow_private=True, timeout=5, retries=1)
    report = crawl([ranges], tmp_path / "pairs.parquet", limits)
    assert [row["caption"] for row in rows(tmp_path / "pairs.parquet")] == [f"page {n}" for n in range(6)]
    assert report.failures == {}
    with pytest.raises(WorkError, match="no_archive"):
        crawl([ranges], tmp_path / "pairs.parquet")  # a private address


def test_archives_in_a_store(tmp_path: Path) -> None:
    import fsspec

    with fsspec.open("memory://crawl/a.warc.gz", "wb") as out:
        out.write(write_warc(tmp_path / "a.warc.gz", numbered(2)).read_bytes())
    report = crawl(["memory://crawl/a.warc.gz"], tmp_path / "pairs.parquet")
    assert report.pairs == 2
    with pytest.raises(WorkError, match="no_archive"):
        crawl(["memory://crawl/missing.warc.gz"], tmp_path / "pairs.parquet")
    with pytest.raises(RequestError, match="nosuch"):
        crawl(["nosuch://crawl/a.warc.gz"], tmp_path / "pairs.parquet")


def test_encoded_bodies_and_wrong_charsets(tmp_path: Path) -> None:
    latin = "<img src=a.jpg alt='Größe'>".encode("latin-1")
    japanese = "<img src=a alt='表'>".encode("sjis")  # its second byte is a backslash
    kind = [("Content-Type", "text/html; charset=no-such")]
    answers = [
        ("http://example.com/1/", 200, [*kind, ("Content-Encoding", "gzip")], gzip.compress(latin)),
        ("http://example.com/2/", 200, [("Content-Type", "text/html; charset=iso-8859-1")], latin),
        ("http://example.com/3/", 200, [("Content-Type", "text/html; charset=utf-8")], latin),
        ("http://example.com/4/", 200, [("Content-Type", "text/html; charset=shift_jis")], japanese),
    ]
    found, _ = captions([write_warc(tmp_path / "a.warc.gz", answers)], tmp_path)
    assert found == ["Größe", "Größe", "Gr\ufffd\ufffde", "表"]


def test_a_schema_without_surprises(tmp_path: Path) -> None:
    captions([write_warc(tmp_path / "a.warc.gz", numbered(1))], tmp_path)
    schema = pq.read_schema(tmp_path / "pairs.parquet")
    assert schema.field("page_licence").type == pa.string()
    assert httpx.URL(rows(tmp_path / "pairs.parquet")[0]["url"]).is_absolute_url


def test_other_records_are_counted_or_are_no_pages(tmp_path: Path) -> None:
    path = write_warc(tmp_path / "a.warc.gz", numbered(2))
    with path.open("ab") as out:
        writer = WARCWriter(out, gzip=True)
        for kind in ("revisit", "conversion", "conversion", "resource", "metadata"):
            payload = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<img src=a.jpg alt=hidden>"
            told = {"payload": io.BytesIO(payload), "warc_content_type": "text/plain"}
            writer.write_record(writer.create_warc_record("http://e.com/", kind, **told))
    found, report = captions([path], tmp_path)
    assert found == ["page 0", "page 1"]
    assert report.failures == {"conversion": 2, "revisit": 1}
    assert report.pages == report.pages_read + sum(report.failures.values()) == 5


def test_bodies_as_servers_send_them(tmp_path: Path) -> None:
    html = b"<img src=a.jpg alt='a red star'>"
    chunked = (
        b"".join(b"%x\r\n%b\r\n" % (len(html[k : k + 7]), html[k : k + 7]) for k in range(0, len(html), 7))
        + b"0\r\n\r\n"
    )
    packed = gzip.compress(html)
    kind = ("Content-Type", "text/html")
    answers = [
        ("http://example.com/1/", 200, [kind, ("Transfer-Encoding", "chunked")], chunked),
        ("http://example.com/2/", 200, [kind, ("Content-Encoding", "br")], pa.compress(html, "brotli", asbytes=True)),
        ("http://example.com/3/", 200, [kind, ("Content-Encoding", "zstd")], pa.compress(html, "zstd", asbytes=True)),
        (
            "http://example.com/4/",
            200,
            [kind, ("Transfer-Encoding", "chunked"), ("Content-Encoding", "gzip")],
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed),
        ),
    ]
    found, report = captions([write_warc(tmp_path / "a.warc.gz", answers)], tmp_path)
    assert found == ["a red star"] * 4 and report.failures == {}


@pytest.mark.parametrize("packing", ["zst", "lz4"])
def test_other_packings(tmp_path: Path, packing: str) -> None:
    plain = write_warc(tmp_path / "a.warc", numbered(3), False).read_bytes()
    path = tmp_path / f"a.warc.{packing}"
    with pa.CompressedOutputStream(path, {"zst": "zstd", "lz4": "lz4"}[packing]) as out:
        out.write(plain)
    assert captions([path], tmp_path)[0] == ["page 0", "page 1", "page 2"]


@pytest.mark.parametrize(
    ("charset", "told", "meta"),
    [
        ("gbk", "gbk", ""),
        ("gb18030", "GB2312", ""),
        ("gbk", None, "<meta charset=gbk>"),
        ("utf-8", None, "<meta charset=utf-8>"),
        ("euc-jp", "euc-jp", ""),
        ("iso-2022-jp", "iso-2022-jp", ""),
        ("utf-16", None, ""),
        ("koi8-r", None, "<meta http-equiv=content-type content='text/html; charset=koi8-r'>"),
    ],
)
def test_pages_in_other_encodings(tmp_path: Path, charset: str, told: str | None, meta: str) -> None:
    text = "красная звезда" if charset == "koi8-r" else "東京の写真"
    kind = ("Content-Type", f"text/html; charset={told}" if told else "text/html")
    html = f"<html>{meta}<img src=a.jpg alt='{text}'><img src=b.jpg alt='plain'>".encode(charset)
    answers = [("http://example.com/1/", 200, [kind], html)]
    assert captions([write_warc(tmp_path / "a.warc.gz", answers)], tmp_path)[0] == [text, "plain"]


def test_every_page_and_image_has_an_outcome(tmp_path: Path) -> None:
    html = (
        "<img src=/1.jpg alt=one><img src=/1.jpg alt=one><img src=/2.jpg><img alt=none><img src=data:x alt=inline>"
        "<figure><img src=/3.jpg><figcaption>three</figcaption></figure><noscript><img src=/4.jpg alt=four></noscript>"
    )
    answers = [page(1, html), page(2, "<meta name=robots content=noai><img src=a alt=x>"), page(3, "<p>nothing")]
    answers.append(("http://example.com/4/", 200, [("Content-Type", "image/png")], b"png"))
    found, report = captions([write_warc(tmp_path / "a.warc.gz", answers)], tmp_path)
    assert found == ["one", "three", "four"]
    assert (report.pages, report.pages_read, report.failures) == (4, 2, {"noai": 1, "not_html": 1})
    assert report.images == report.pairs + report.repeated + report.without_text + report.without_url == 7
