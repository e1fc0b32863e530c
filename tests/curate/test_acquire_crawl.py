"""curate crawl against real HTTP on loopback, and against WARC files."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curate.acquire import backend
from curate.acquire.addresses import resolve
from curate.acquire.crawl import CrawlReport, crawl, report_path
from curate.acquire.fetch import FetchLimits
from curate.acquire.pairs import SCHEMA
from curate.cli import run
from curate.errors import RequestError, WorkError
from tests.curate.test_acquire_server import Server, hostile_server

QUICK = FetchLimits(allow_private=True, timeout=2, total_timeout=2, retries=1, max_bytes=100_000)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with hostile_server() as server:
        yield server


def crawl_paths(server: Server, folder: Path, *paths: str, limits: FetchLimits = QUICK) -> CrawlReport:
    listed = folder / "pages.txt"
    listed.write_text("# pages\n\n" + "\n".join(server.origin + path for path in paths))
    return crawl([str(listed)], folder / "pairs.parquet", limits)


def captions(folder: Path) -> list[str]:
    return pq.read_table(folder / "pairs.parquet")["caption"].to_pylist()


def test_pairs_come_in_the_order_of_the_pages(server: Server, tmp_path: Path) -> None:
    paths = [f"/{number}.html" for number in range(40)]
    report = crawl_paths(server, tmp_path, *paths, paths[0])
    table = pq.read_table(tmp_path / "pairs.parquet")
    assert table.schema.equals(SCHEMA)
    assert table["caption"].to_pylist() == [f"from {path}" for path in paths]
    assert set(table["url"].to_pylist()) == {f"{server.origin}/a.jpg"}
    assert (report.pages, report.pages_read, report.pages_repeated, report.pairs) == (40, 40, 1, 40)
    assert json.loads(report_path(tmp_path / "pairs.parquet").read_text())["pairs"] == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "pages.txt",
        "pairs.parquet",
        "pairs.report.json",
    ]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/to-file", "bad_redirect"),
        ("/loop", "too_many_redirects"),
        ("/endless", "too_large"),
        ("/drip", "timeout"),
        ("/missing", "http_4xx"),
        ("/broken", "http_5xx"),
        ("/secret/page.html", "robots"),
        ("/not-html", "not_html"),
        ("/bomb", "protocol"),
        ("/a/print/page.html", "robots"),
        ("/good.html?session=7", "robots"),
        ("/noai", "noai"),
    ],
)
def test_hostile_answers_are_counted_by_reason(server: Server, tmp_path: Path, path: str, reason: str) -> None:
    started = time.monotonic()
    report = crawl_paths(server, tmp_path, path, "/good.html")
    assert report.failures == {reason: 1}
    assert captions(tmp_path) == ["from /good.html"]
    assert time.monotonic() - started < 10


def test_robots_txt_may_allow_again(server: Server, tmp_path: Path) -> None:
    report = crawl_paths(server, tmp_path, "/secret/open/page.html")
    assert report.failures == {}
    assert captions(tmp_path) == ["from /secret/open/page.html"]


def test_a_forbidden_page_is_never_asked_for(server: Server, tmp_path: Path) -> None:
    crawl_paths(server, tmp_path, "/secret/plan.html", "/good.html")
    assert server.asked["/secret/plan.html"] == 0
    assert server.asked["/robots.txt"] > 0


def test_redirects_are_followed_and_give_the_final_page(server: Server, tmp_path: Path) -> None:
    crawl_paths(server, tmp_path, "/to-page", "/wrong-charset")
    assert captions(tmp_path) == ["from /redirected.html", "Größe"]
    pages = pq.read_table(tmp_path / "pairs.parquet")["page_url"].to_pylist()
    assert pages[0] == f"{server.origin}/redirected.html"


def test_private_addresses_are_refused_unless_allowed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="refused_address"):
        crawl_paths(server, tmp_path, "/good.html", limits=FetchLimits())
    assert not (tmp_path / "pairs.parquet").exists()


@pytest.mark.parametrize("path", ["/to-private", "/to-metadata"])
def test_a_redirect_to_a_private_address_is_refused(
    server: Server, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_if_public(host: str, port: int, *, allow_private: bool) -> list[str]:
        return resolve(host, port, allow_private=allow_private or port == server.server_port)

    monkeypatch.setattr(backend, "resolve", as_if_public)
    report = crawl_paths(server, tmp_path, path, "/good.html", limits=FetchLimits(timeout=2))
    assert report.failures == {"refused_address": 1}


def test_an_unreachable_host_costs_its_other_pages_no_time(tmp_path: Path) -> None:
    listed = tmp_path / "pages.txt"
    listed.write_text("\n".join(f"http://127.0.0.1:9/{number}" for number in range(50)))
    started = time.monotonic()
    with pytest.raises(WorkError, match="50 connect"):
        crawl([str(listed)], tmp_path / "pairs.parquet", QUICK)
    assert time.monotonic() - started < 10


def warc_record(number: int, status: int, content_type: str, body: bytes) -> bytes:
    http = f"HTTP/1.1 {status} x\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://example.com/{number}/\r\n"
        f"WARC-Date: 2024-01-01T00:00:00Z\r\nWARC-Record-ID: <urn:uuid:{number:032d}>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http) + len(body)}\r\n\r\n"
    )
    return head.encode() + http + body + b"\r\n\r\n"


WARC_RECORDS = [
    warc_record(0, 200, "text/html", b"<img src=/a.jpg alt='a red star'>"),
    warc_record(1, 404, "text/html", b"<img src=/a.jpg alt='not found'>"),
    warc_record(2, 200, "image/png", b"png"),
    warc_record(3, 200, "text/html; charset=iso-8859-1", "<img src=b.jpg alt='Größe'>".encode("latin-1")),
]


def test_warc_pages(tmp_path: Path) -> None:
    plain, packed = tmp_path / "pages.warc", tmp_path / "pages.warc.gz"
    plain.write_bytes(b"".join(WARC_RECORDS))
    packed.write_bytes(b"".join(map(gzip.compress, WARC_RECORDS)))
    for path in (plain, packed):
        report = crawl([str(path)], tmp_path / "pairs.parquet")
        table = pq.read_table(tmp_path / "pairs.parquet")
        assert table["url"].to_pylist() == ["http://example.com/a.jpg", "http://example.com/3/b.jpg"]
        assert table["caption"].to_pylist() == ["a red star", "Größe"]
        assert report.failures == {"http_4xx": 1, "not_html": 1}


def test_a_warc_file_that_was_cut_off_keeps_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "pages.warc.gz"
    path.write_bytes(gzip.compress(WARC_RECORDS[0]) + b"rubbish" * 50)
    assert crawl([str(path)], tmp_path / "pairs.parquet").pairs == 1


def test_a_file_that_is_no_warc(tmp_path: Path) -> None:
    path = tmp_path / "x.warc"
    path.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(RequestError, match=r"x\.warc"):
        crawl([str(path)], tmp_path / "pairs.parquet")


def test_the_command(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "pairs.parquet")
    assert run(["crawl", f"{server.origin}/1.html", "-o", out, "--allow-private", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == 1
    assert run(["crawl", "no-such-list.txt", "-o", out]) == 2
    assert "no-such-list.txt" in capsys.readouterr().err
    assert run(["crawl", f"{server.origin}/missing", "-o", out, "--allow-private"]) == 1
    assert run(["crawl", f"{server.origin}/1.html", "-o", str(tmp_path)]) == 2


def test_of_a_long_robots_txt_the_beginning_holds(server: Server, tmp_path: Path) -> None:
    server.robots += "\n" + "# a comment\n" * 60_000
    report = crawl_paths(server, tmp_path, "/secret/page.html", "/good.html")
    assert report.failures == {"robots": 1}
    assert captions(tmp_path) == ["from /good.html"]
