"""A crawl that was interrupted goes on behind its finished parts; a server that asks to wait is left alone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from protego import Protego

from curate import metrics
from curate.acquire import crawl_addresses, fetch_hosts
from curate.acquire.crawl import crawl
from curate.acquire.fetch import Fetcher, FetchLimits, Page
from curate.acquire.fetch_hosts import FetchFailure, Hosts
from curate.cli import run
from curate.errors import WorkError
from tests.curate.test_acquire_archives import numbered, write_warc
from tests.running import running

LIMITS = FetchLimits(allow_private=True, timeout=5, retries=1, threads=4)


class Web(ThreadingHTTPServer):
    """Pages with an image each; `/busy` and `/closed` ask to wait. Notes when what was asked for."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Pages)
        self.asked: list[tuple[float, str]] = []
        self.archive: bytes | None = None
        self.stopping = threading.Event()

    def paths(self) -> list[str]:
        return [path for _, path in self.asked if path != "/robots.txt"]

    def list(self, folder: Path, *paths: str) -> str:
        (folder / "pages.txt").write_text("\n".join(f"http://127.0.0.1:{self.server_port}{path}" for path in paths))
        return str(folder / "pages.txt")


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        again = self.path in self.server.paths()
        self.server.asked.append((time.monotonic(), self.path))
        body, status, wait = f"<img src=a.jpg alt='{self.path}'>".encode(), 200, ""
        if self.path == "/robots.txt":
            status = 404
        elif self.path == "/busy" and not again:
            status, wait = 429, "2"
        elif self.path == "/closed":
            status, wait = 503, "3600"
        elif self.path.endswith(".warc.gz"):
            if self.server.archive is None:
                self.server.stopping.wait(60)
            body = self.server.archive or b""
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        if wait:
            self.send_header("Retry-After", wait)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def web() -> Iterator[Web]:
    with running(Web()) as server:
        yield server


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_a_crawl_that_was_killed_goes_on_behind_its_archives(web: Web, tmp_path: Path) -> None:
    answers = numbered(6)
    files = [str(write_warc(tmp_path / f"{n}.warc.gz", answers[2 * n : 2 * n + 2])) for n in range(3)]
    sources = [*files[:2], f"http://127.0.0.1:{web.server_port}/2.warc.gz"]
    out, whole = tmp_path / "pairs.parquet", tmp_path / "whole.parquet"
    command = [sys.executable, "-m", "curate.cli", "crawl", *sources, "-o", str(out), "--allow-private"]
    with subprocess.Popen(command) as process:
        while not web.asked:  # the third archive, which does not come
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    assert not out.exists() and hidden(tmp_path) == [".pairs.parquet.parts"]
    web.archive = Path(files[2]).read_bytes()
    report = crawl(sources, out, FetchLimits(allow_private=True, threads=3))
    assert (report.parts_before, report.pages_read, hidden(tmp_path)) == (2, 6, [])
    assert crawl(sources, whole, FetchLimits(allow_private=True)).parts_before == 0
    assert out.read_bytes() == whole.read_bytes()


def test_a_crawl_that_was_interrupted_asks_for_no_page_of_its_parts_again(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crawl_addresses, "PAGES", 5)
    paths = [f"/{n}" for n in range(17)]
    listed, out, whole = web.list(tmp_path, *paths, "/3"), tmp_path / "pairs.parquet", tmp_path / "whole.parquet"
    fetch = Fetcher.fetch

    def until_12(self: Fetcher, url: str) -> Page:
        if url.endswith("/12"):
            raise KeyboardInterrupt
        return fetch(self, url)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Fetcher, "fetch", until_12)
        crawl([listed], out, LIMITS)
    assert not out.exists()
    asked = len(web.paths())
    report = crawl([listed], out, LIMITS)
    assert (report.parts_before, report.pages_read, report.pages_repeated, report.pairs) == (2, 17, 1, 17)
    assert sorted(web.paths()[asked:]) == sorted(paths[10:])
    crawl([listed], whole, LIMITS)
    assert out.read_bytes() == whole.read_bytes() and hidden(tmp_path) == []


def test_an_archive_that_could_not_be_read_is_all_that_the_same_crawl_reads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[dict[str, Any]] = []
    monkeypatch.setattr(metrics, "crawled", counted.append)
    store = fsspec.filesystem("memory")
    answers = numbered(4)
    packed = write_warc(tmp_path / "b.warc.gz", answers[2:]).read_bytes()
    sources = [str(write_warc(tmp_path / "a.warc.gz", answers[:2])), "memory://later/b.warc.gz"]
    report = crawl(sources, tmp_path / "pairs.parquet")
    assert (report.pairs, report.failures, report.parts_before) == (2, {"no_archive": 1}, 0)
    store.pipe("/later/b.warc.gz", packed)
    report = crawl(sources, tmp_path / "pairs.parquet")
    assert (report.pairs, report.failures, report.parts_before, hidden(tmp_path)) == (4, {}, 1, [])
    assert counted == [
        {"pages_read": 2, "failures": {"no_archive": 1}, "pairs": 2},
        {"pages_read": 2, "failures": {}, "pairs": 2},
    ]


def test_parts_of_another_request_are_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = [str(write_warc(tmp_path / "a.warc.gz", numbered(2))), "memory://nowhere/b.warc.gz"]
    out = tmp_path / "pairs.parquet"
    command = ["crawl", *sources, "-o", str(out)]
    assert run(command) == 0
    assert "run the same command again" in capsys.readouterr().out
    assert run(command) == 0
    assert "finished by an earlier run: 1" in capsys.readouterr().out
    assert run([*command, "--texts", "title"]) == 0
    assert "other sources or settings" in caplog.text
    assert "finished by" not in capsys.readouterr().out


def test_a_failed_crawl_leaves_nothing(web: Web, tmp_path: Path) -> None:
    listed = web.list(tmp_path, "/closed")
    with pytest.raises(WorkError, match="1 http_5xx"):
        crawl([listed], tmp_path / "pairs.parquet", LIMITS)
    with pytest.raises(WorkError, match="1 no_archive"):
        crawl(["memory://nowhere/a.warc.gz"], tmp_path / "pairs.parquet")
    assert hidden(tmp_path) == []


def test_a_host_that_asks_to_wait_is_left_alone_by_all_its_pages(web: Web, tmp_path: Path) -> None:
    listed = web.list(tmp_path, "/1", "/busy", *(f"/{n}" for n in range(2, 12)))
    limits = replace(LIMITS, threads_per_host=1)
    assert crawl([listed], tmp_path / "pairs.parquet", limits).pages_read == 12
    told = next(at for at, path in web.asked if path == "/busy")
    assert [path for at, path in web.asked if told < at < told + 1.9] == []


def test_a_host_that_asks_to_wait_for_long_is_given_up(web: Web, tmp_path: Path) -> None:
    listed = web.list(tmp_path, "/1", "/closed", *(f"/{n}" for n in range(2, 12)))
    report = crawl([listed], tmp_path / "pairs.parquet", replace(LIMITS, threads=1))
    assert (report.pages_read, report.failures) == (1, {"http_5xx": 11})
    assert web.paths() == ["/1", "/closed"]


def test_hosts_are_forgotten_but_for_those_that_asked_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_hosts, "_HOSTS", 10)
    asked: list[str] = []

    def rules(origin: str) -> Protego:
        asked.append(origin)
        return Protego.parse("User-agent: *\nDisallow: /no")

    hosts = Hosts(rules, "curate", 0.0, 1, 1)
    with pytest.raises(FetchFailure), hosts.turn("http://closed.example/"):
        raise FetchFailure("http_5xx", again=True, wait=600)
    for number in range(20):
        with hosts.turn(f"http://{number}.example/"):
            pass
        with pytest.raises(FetchFailure, match="robots"), hosts.turn(f"http://{number}.example/no"):
            pass
    assert len(asked) == 21
    with pytest.raises(FetchFailure, match="http_5xx"), hosts.turn("http://closed.example/x"):
        pass
    for number in (19, 11, 0):
        with hosts.turn(f"http://{number}.example/"):
            pass
    assert asked[21:] == ["http://0.example"]


def test_an_error_of_robots_txt_allows_nothing_and_may_be_over_later() -> None:
    answers: list[Protego | FetchFailure] = [FetchFailure("http_5xx", again=True), Protego.parse("")]

    def rules(origin: str) -> Protego:
        found = answers.pop(0)
        if isinstance(found, FetchFailure):
            raise found
        return found

    hosts = Hosts(rules, "curate", 0.0, 1, 1)
    with pytest.raises(FetchFailure, match="http_5xx"), hosts.turn("http://a.example/"):
        pytest.fail("no request may go out")
    with hosts.turn("http://a.example/"):
        pass
    answers[:] = [FetchFailure("http_5xx", again=True)] * 2
    for _ in range(4):
        with pytest.raises(FetchFailure, match="http_5xx"), hosts.turn("http://b.example/"):
            pytest.fail("no request may go out")
    answers[:] = [FetchFailure("http_5xx", again=True, wait=600)]
    for _ in range(2):
        with pytest.raises(FetchFailure, match="http_5xx"), hosts.turn("http://c.example/"):
            pytest.fail("no request may go out")
    assert answers == []
