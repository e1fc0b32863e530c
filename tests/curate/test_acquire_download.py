"""curate download: a pool from real HTTP, with every failure accounted for."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.acquire.download import DownloadLimits, DownloadReport, download
from curate.acquire.failures import DownloadFailure
from curate.acquire.header import HeaderCheck
from curate.acquire.opener import OpenerLimits, safe_opener
from curate.acquire.pairs import pair_uid
from curate.acquire.shards import ShardLimits
from curate.cli import run
from curate.errors import RequestError
from tests.curate.test_acquire_server import Server, hostile_server, jpeg

LIMITS = DownloadLimits(
    allow_private=True,
    retries=1,
    retry_pause=0.1,
    processes=1,
    timeout=10.0,
    total_timeout=10.0,
    max_bytes=200_000,
    samples_per_shard=8,
)
GOOD = [f"/{number}.jpg" for number in range(9)]
BAD = {
    "/missing": "http_4xx",
    "/broken": "http_5xx",
    "/page.html": "not_an_image",
    "/endless": "too_large",
    "/to-file": "bad_redirect",
    "/forbidden-use": "disallowed",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with hostile_server() as server:
        yield server


@pytest.fixture(scope="module")
def pairs(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    paths = [*GOOD, *BAD, "/once/a", "/once/b"]
    urls = [server.origin + path for path in paths] + ["file:///etc/passwd", None]
    table = pa.table(
        {
            "url": [*urls, urls[0]],  # the last row repeats the first
            "caption": [f"caption {url}" for url in urls] + [f"caption {urls[0]}"],
            "page_url": ["http://example.com/"] * (len(urls) + 1),
        }
    )
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="module")
def pool(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DownloadReport]:
    folder = tmp_path_factory.mktemp("download") / "pool"
    return folder, download(pairs, folder, LIMITS)


def tar_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_every_pair_is_accounted_for(pool: tuple[Path, DownloadReport]) -> None:
    folder, report = pool
    assert report.asked == report.downloaded + sum(report.failed.values()) == len(GOOD) + len(BAD) + 4
    assert report.failed == {**dict.fromkeys(BAD.values(), 1), "bad_url": 2}
    assert (report.repeated, report.downloaded_by_retry, report.rounds) == (1, 2, 2)
    written = json.loads((folder / "download.json").read_text())
    assert (written["asked"], written["failed"]) == (report.asked, report.failed)


def test_the_pool_holds_the_original_bytes_and_the_facts(pool: tuple[Path, DownloadReport], server: Server) -> None:
    folder, report = pool
    samples = 0
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        assert list(members) == sorted(members, key=lambda name: name.split(".")[0])
        for name, content in members.items():
            if not name.endswith(".json"):
                continue
            facts, key = json.loads(content), name.removesuffix(".json")
            image = members[f"{key}.jpg"]
            assert image == (jpeg((30, 200, 30)) if "/once/" in facts["url"] else jpeg())
            assert members[f"{key}.txt"].decode() == facts["caption"] == f"caption {facts['url']}"
            assert facts["uid"] == pair_uid(facts["url"], facts["caption"])
            assert (facts["width"], facts["height"], facts["page_url"]) == (64, 48, "http://example.com/")
            samples += 1
    assert samples == report.downloaded


def test_failures_stand_in_the_shard_tables(pool: tuple[Path, DownloadReport]) -> None:
    folder, _ = pool
    table = pq.read_table(folder / "00001.parquet").to_pylist()
    messages = {row["url"].rsplit("/", 1)[1]: row["error_message"] for row in table}
    assert messages["missing"] == "http_4xx: 404"
    assert [row["key"] for row in table] == sorted(row["key"] for row in table)


def test_a_finished_download_returns_at_once(pool: tuple[Path, DownloadReport], pairs: Path, server: Server) -> None:
    folder, report = pool
    before = server.asked.total()
    assert download(pairs, folder, LIMITS) == report
    assert server.asked.total() == before


def test_a_download_that_was_cut_off_resumes_to_the_same_bytes(
    pool: tuple[Path, DownloadReport], pairs: Path, server: Server
) -> None:
    folder, report = pool
    before, asked = tar_bytes(folder), server.asked["/8.jpg"]
    (folder / "download.json").unlink()
    for ending in (".tar", ".parquet", "_stats.json"):
        (folder / f"00000{ending}").unlink()
    again = download(pairs, folder, LIMITS)
    assert (again.downloaded, again.failed) == (report.downloaded, report.failed)
    assert tar_bytes(folder) == before
    assert server.asked["/8.jpg"] == asked  # its shard was whole


def test_wrong_requests(
    pool: tuple[Path, DownloadReport],
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = pool
    with pytest.raises(RequestError, match="allow_private"):
        download(pairs, folder, DownloadLimits(retries=1, max_bytes=200_000, samples_per_shard=8))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("do not touch")
    with pytest.raises(RequestError, match="mine"):
        download(pairs, tmp_path / "mine", LIMITS)
    with pytest.raises(RequestError, match="no column 'link'"):
        download(pairs, tmp_path / "new", DownloadLimits(url_column="link"))
    with pytest.raises(RequestError, match="threads"):
        download(pairs, tmp_path / "new", DownloadLimits(threads=0))
    (tmp_path / "text.parquet").write_text("not Parquet")
    assert run(["download", str(tmp_path / "text.parquet"), str(tmp_path / "new")]) == 2
    assert "text.parquet" in capsys.readouterr().err
    assert run(["download", str(tmp_path / "missing.parquet"), str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()


def test_no_pairs_at_all(tmp_path: Path) -> None:
    empty = pa.array([], pa.string())
    pq.write_table(pa.table({"url": empty, "caption": empty}), tmp_path / "p")
    report = download(tmp_path / "p", tmp_path / "pool", LIMITS)
    assert (report.asked, report.downloaded, report.shards) == (0, 0, 0)


def test_header_check_reads_no_pixels_and_keeps_the_limits() -> None:
    limits = ShardLimits(
        robots=False,
        allow_private=False,
        threads=1,
        timeout=1.0,
        total_timeout=1.0,
        max_bytes=1000,
        min_side=40,
        max_pixels=64 * 48,
        max_aspect_ratio=2.0,
        samples_per_shard=10,
        user_agent="test",
    )
    check = HeaderCheck(limits)
    truncated = jpeg()[:-20]
    assert check(io.BytesIO(truncated))[:3] == (truncated, 64, 48)
    assert check(io.BytesIO(jpeg(size=(64, 49))))[5].startswith("too_many_pixels")
    assert check(io.BytesIO(jpeg(size=(64, 30))))[5].startswith("too_small")
    assert check(io.BytesIO(jpeg(size=(10, 200))))[5].startswith("too_small")
    assert check(io.BytesIO(jpeg(size=(84, 40))))[5] == "too_many_pixels: 84×40 pixels"
    assert check(io.BytesIO(jpeg(size=(40, 76))))[1:3] == (40, 76)
    assert check(io.BytesIO(b"<svg/>"))[5].startswith("not_an_image")
    assert check(io.BytesIO(b""))[5].startswith("empty")


@pytest.mark.parametrize("told", ["", "\n# long\n" * 80_000])
def test_robots_txt_of_image_hosts_where_asked_for(told: str, tmp_path: Path) -> None:
    paths = ["/1.jpg", "/secret/2.jpg", "/secret/open/3.jpg", "/to-page", "/a.jpg?session=1"]
    with hostile_server() as server:
        server.robots += told
        table = pa.table({"url": [server.origin + path for path in paths], "caption": paths})
        pq.write_table(table, tmp_path / "pairs.parquet")
        plain = download(tmp_path / "pairs.parquet", tmp_path / "plain", LIMITS)
        assert (plain.downloaded, server.asked["/robots.txt"]) == (4, 0)
        polite = download(tmp_path / "pairs.parquet", tmp_path / "polite", replace(LIMITS, robots=True))
        assert (polite.downloaded, polite.failed) == (2, {"robots": 2, "not_an_image": 1})
        assert (server.asked["/robots.txt"], server.asked["/secret/2.jpg"]) == (1, 1)


@pytest.mark.parametrize(
    ("status", "location", "outcome"),
    [
        (404, None, {}),
        (503, None, {"http_5xx": 1}),
        (302, "/rules", {"robots": 1}),
        (302, "file:///etc/passwd", {}),
        (302, "/robots.txt", {}),
    ],
)
def test_robots_txt_that_is_not_there(status: int, location: str | None, outcome: dict[str, int]) -> None:
    class Rules(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/robots.txt" else 200)
            if location and self.path == "/robots.txt":
                self.send_header("Location", location)
            body = b"User-agent: *\nDisallow: /*.jpg" if self.path == "/rules" else b"image"
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Rules)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    opener = safe_opener(OpenerLimits(allow_private=True, robots=True), "curate")
    try:
        with opener.open(f"http://127.0.0.1:{server.server_port}/a.jpg") as answer:
            found = {} if answer.read() == b"image" else None
    except DownloadFailure as failed:
        found = {failed.reason: 1}
    finally:
        server.shutdown()
        server.server_close()
    assert found == outcome


def test_a_host_that_cannot_be_reached_is_no_matter_of_robots_txt() -> None:
    opener = safe_opener(OpenerLimits(allow_private=True, robots=True), "curate")
    with pytest.raises(DownloadFailure, match="connect"):
        opener.open("http://127.0.0.1:9/a.jpg")
    with pytest.raises(DownloadFailure, match="refused_address"):
        safe_opener(OpenerLimits(robots=True), "curate").open("http://127.0.0.1:9/a.jpg")
