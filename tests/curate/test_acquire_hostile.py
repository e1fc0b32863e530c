"""Everything a server can do wrong, over real sockets: what becomes of each address, for images and for pages."""

from __future__ import annotations

import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.acquire import addresses, backend, opener
from curate.acquire.download import DownloadLimits, download
from curate.acquire.failures import DownloadFailure, failure_of, may_succeed_later, reason_of, retry_after
from curate.acquire.fetch import Fetcher, FetchLimits
from curate.acquire.fetch_hosts import FetchFailure
from curate.acquire.opener import OpenerLimits, SafeOpener, safe_opener
from tests.curate.hostile import ANSWERS, HostileServer, authority, serving

MOST = 200_000
WAIT = 4.0  # seconds: long for a busy machine, as only what must time out takes them
GOOD = "ok"
# What an image download and a page fetch make of it. Pages must be HTML, so images are `not_html` there.
EXPECTED: dict[str, tuple[str, str]] = {
    "/good.jpg": (GOOD, "not_html"),
    "/good.html": (GOOD, GOOD),
    "/text.jpg": (GOOD, "not_html"),
    "/to-good": (GOOD, "not_html"),
    "/to-page": (GOOD, GOOD),
    "/endless-redirect": (GOOD, "not_html"),  # the body of a redirect is not read
    "/long": (GOOD, GOOD),  # as far as it was announced
    "/odd-length": (GOOD, "protocol"),
    "/no-length": (GOOD, GOOD),
    "/chunked": (GOOD, GOOD),
    "/gzip": (GOOD, "not_html"),
    "/gzip-page": (GOOD, GOOD),
    "/noai-other": (GOOD, "not_html"),
    "/nothing": (GOOD, "protocol"),  # no bytes, which the header check refuses
    **dict.fromkeys(("/to-file", "/to-ftp", "/to-data", "/to-script"), ("bad_redirect", "bad_redirect")),
    **dict.fromkeys(("/to-password", "/to-nowhere", "/to-octal"), ("bad_redirect", "bad_redirect")),
    **dict.fromkeys(("/to-private", "/to-loopback", "/to-metadata"), ("refused_address", "refused_address")),
    **dict.fromkeys(("/to-v6", "/to-mapped", "/to-decimal"), ("refused_address", "refused_address")),
    **dict.fromkeys(("/to-hex", "/to-short", "/to-any", "/to-name"), ("refused_address", "refused_address")),
    **dict.fromkeys(("/to-inside", "/to-mail"), ("refused_address", "refused_address")),
    "/loop": ("too_many_redirects", "too_many_redirects"),
    "/short": ("cut_off", "cut_off"),
    "/short-chunk": ("cut_off", "cut_off"),
    "/bad-chunk": ("cut_off", "protocol"),
    "/gzip-short": ("cut_off", GOOD),  # a page that was cut off is read as far as it goes, like in a browser
    "/huge": ("too_large", "cut_off"),
    "/endless": ("too_large", "too_large"),
    "/gzip-bomb": ("too_large", "too_large"),
    **dict.fromkeys(("/gzip-junk", "/brotli"), ("protocol", "protocol")),
    **dict.fromkeys(("/not-http", "/no-status", "/long-header"), ("protocol", "protocol")),
    **dict.fromkeys(("/endless-headers", "/unchanged"), ("protocol", "protocol")),
    **dict.fromkeys(("/drip", "/drip-headers", "/drip-chunks"), ("timeout", "timeout")),
    **dict.fromkeys(("/silent", "/endless-continue"), ("timeout", "timeout")),
    "/close": ("connect", "connect"),
    **dict.fromkeys(("/missing", "/forbidden", "/gone"), ("http_4xx", "http_4xx")),
    **dict.fromkeys(("/broken", "/unable"), ("http_5xx", "http_5xx")),
    **dict.fromkeys(("/noai", "/noai-us", "/reserved"), ("disallowed", "not_html")),
    "/noai-page": ("disallowed", GOOD),  # a page is read for its metas, and refused after that
}
ADDRESSES: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("file:///etc/passwd", "ftp://example.com/a.jpg", "gopher://example.com/"), ("bad_url", "bad_url")),
    **dict.fromkeys(("data:image/png;base64,AAAA", "http:///a.jpg", "//example.com"), ("bad_url", "bad_url")),
    **dict.fromkeys(("http://user:secret@93.184.216.34/", "http://93.184.216.34:99999/"), ("bad_url", "bad_url")),
    **dict.fromkeys(("http://[::1/a.jpg", "http://0177.0.0.1/", ""), ("bad_url", "bad_url")),
    **dict.fromkeys(("http://127.0.0.1:{other}/", "http://[::1]:{port}/"), ("refused_address", "refused_address")),
    **dict.fromkeys(("http://2130706433:{port}/", "http://0x7f.1:{port}/"), ("refused_address", "refused_address")),
    **dict.fromkeys(("http://localhost:{port}/", "http://[::ffff:7f00:1]:{port}/"), ("refused_address",) * 2),
    **dict.fromkeys(("http://inside.example/", "http://[64:ff9b::a00:1]/"), ("refused_address", "refused_address")),
    **dict.fromkeys(("http://93.184.216.34:22/", "http://93.184.216.34:6379@127.0.0.1/"), ("bad_url", "bad_url")),
    "http://93.184.216.34:22/": ("refused_address", "refused_address"),  # a port where no web server listens
    **dict.fromkeys(("http://bücher.invalid/ä.jpg", "http://no-such-host.invalid/"), ("dns", "dns")),
    "http://{63}.invalid/".replace("{63}", "a" * 64): ("dns", "dns"),
    "http://127.0.0.1:{port}/a%0d%0aX-Evil:%201": ("http_4xx", "http_4xx"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with serving() as server:
        yield server


@pytest.fixture
def as_if_public(server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 at the server's port, spelled like that, is public; `inside.example` is a name for 10.0.0.1."""
    real = addresses.resolve

    def resolve(host: str, port: int, *, allow_private: bool) -> list[str]:
        ours = (host, port) == ("127.0.0.1", server.port)
        return real("10.0.0.1" if host == "inside.example" else host, port, allow_private=allow_private or ours)

    monkeypatch.setattr(addresses, "resolve", resolve)
    monkeypatch.setattr(backend, "resolve", resolve)


def of_image(opener: SafeOpener, url: str) -> str:
    try:
        with opener.open(url) as response:
            response.read()
        return GOOD
    except DownloadFailure as failed:
        assert reason_of(str(failed)) == failed.reason
        return failed.reason
    except ValueError as wrong:  # from urllib, before it comes to the opener: img2dataset keeps its text
        return reason_of(str(wrong))


def of_page(fetcher: Fetcher, url: str) -> str:
    try:
        fetcher.fetch(url)
        return GOOD
    except FetchFailure as failed:
        return failed.reason


def both(urls: list[str]) -> dict[str, tuple[str, str]]:
    """What becomes of the addresses, for images and for pages, with short limits and all at once."""
    images = safe_opener(OpenerLimits(timeout=WAIT, total=WAIT, max_bytes=MOST), "curate/1")
    limits = FetchLimits(timeout=WAIT, total_timeout=WAIT, retries=0, max_bytes=MOST, threads=24, threads_per_host=24)
    with Fetcher(limits) as pages, ThreadPoolExecutor(24) as threads:
        first = [threads.submit(of_image, images, url) for url in urls]
        second = [threads.submit(of_page, pages, url) for url in urls]
        return {url: (a.result(), b.result()) for url, a, b in zip(urls, first, second, strict=True)}


@pytest.mark.usefixtures("as_if_public")
def test_every_answer_has_its_reason_and_nothing_hangs(server: HostileServer) -> None:
    started = time.monotonic()
    found = both([server.origin + path for path in EXPECTED])
    assert {url.removeprefix(server.origin): reasons for url, reasons in found.items()} == EXPECTED
    assert time.monotonic() - started < 6 * WAIT
    assert set(ANSWERS) <= {"/robots.txt", *EXPECTED, *IMAGES}  # the latter are downloaded below


@pytest.mark.usefixtures("as_if_public")
def test_every_address_has_its_reason_and_no_other_request_is_made(server: HostileServer) -> None:
    other = 8080 if server.port != 8080 else 8081
    urls = [url.replace("{port}", str(server.port)).replace("{other}", str(other)) for url in ADDRESSES]
    before = len(server.heads)
    assert list(both(urls).values()) == list(ADDRESSES.values())
    heads = server.heads[before:]
    assert {head.split(b" ")[1] for head in heads} <= {b"/a%0d%0aX-Evil:%201", b"/robots.txt"}
    assert not any(line.startswith(b"X-Evil") for head in heads for line in head.split(b"\r\n"))


@pytest.mark.usefixtures("as_if_public")
def test_line_breaks_in_an_address_start_no_header(server: HostileServer) -> None:
    before = len(server.heads)
    both([f"{server.origin}/good.html\r\nX-Evil: 1", f"{server.origin}/good.html HTTP/1.1\r\nX-Evil: 1\r\n\r\n"])
    assert not any(line.startswith(b"X-Evil") for head in server.heads[before:] for line in head.split(b"\r\n"))


def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is public when it is looked up, and private the next time."""
    asked, connected = [0], []

    def rebinding(host: str, port: int, *args: object, **kwargs: object) -> list[tuple]:
        asked[0] += 1
        return [(2, 1, 6, "", ("93.184.216.34" if asked[0] % 2 else "127.0.0.1", port))]

    def connect(address: tuple[str, int], *args: object, **kwargs: object) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError("not in this test")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert both(["http://rebinding.example/a"])["http://rebinding.example/a"] in {
        ("connect", "refused_address"),
        ("refused_address", "connect"),
    }
    assert connected == [("93.184.216.34", 80)]
    assert asked == [2]  # once for each of the two, and not again


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable[..., ssl.SSLContext]]:
    return authority(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("127.0.0.1", 30, True), GOOD),
        (("127.0.0.1", 30, False), "tls"),  # signed by itself
        (("127.0.0.1", -1, True), "tls"),  # expired
        (("example.com", 30, True), "tls"),  # another's
    ],
)
def test_certificates(
    certificates: tuple[Path, Callable[..., ssl.SSLContext]],
    arguments: tuple[str, int, bool],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trusted, context = certificates
    ours = ssl.create_default_context(cafile=str(trusted))
    monkeypatch.setattr(opener, "_context", lambda: ours)
    with serving(context(*arguments)) as server:
        images = safe_opener(OpenerLimits(allow_private=True, timeout=WAIT, total=WAIT))
        assert of_image(images, f"{server.origin}/good.jpg") == expected
        with Fetcher(FetchLimits(allow_private=True, retries=0, timeout=WAIT, total_timeout=WAIT)) as pages:
            assert of_page(pages, f"{server.origin}/good.html") == "tls"  # trusts no authority of ours, of course
        assert server.asked["/good.html"] == 0


def test_a_server_that_speaks_no_tls(server: HostileServer) -> None:
    images = safe_opener(OpenerLimits(allow_private=True, timeout=WAIT, total=WAIT))
    assert of_image(images, f"https://127.0.0.1:{server.port}/good.jpg") in ("tls", "timeout")


def test_a_host_that_asks_to_wait_is_left_alone() -> None:
    with serving() as server:
        images = safe_opener(OpenerLimits(allow_private=True))
        for _ in range(3):
            with pytest.raises(DownloadFailure, match=r"http_5xx: 503, retry after 8\d{4} s"):
                images.open(f"{server.origin}/busy-long")
        with pytest.raises(DownloadFailure, match="retry after"):
            images.open(f"{server.origin}/good.jpg")
        assert server.asked.total() == 1


def test_a_page_that_asks_to_wait_is_waited_for_within_limits() -> None:
    with serving() as server, Fetcher(FetchLimits(allow_private=True, retries=1)) as pages:
        assert of_page(pages, f"{server.origin}/busy") == "not_html"  # after a second
        assert server.asked["/busy"] == 2
        assert of_page(pages, f"{server.origin}/busy-long") == "http_5xx"  # a day is not waited for
        assert server.asked["/busy-long"] == 1


def test_retry_after() -> None:
    assert [retry_after(value) for value in ("120", "0", " 7 ", "-5", "1.5", "soon", "", None)] == [
        *(120.0, 0.0, 7.0, None, None, None, None, None)
    ]
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    assert 55 < (retry_after(later) or 0) <= 60
    assert retry_after("9" * 60) == float("9" * 60)


def test_which_failures_are_tried_again() -> None:
    again = ["dns: Temporary failure", "timeout: x", "connect: x", "cut_off: x", "http_5xx: 503", "http_4xx: 429"]
    again += ["http_4xx: 408", "http_4xx: 429, retry after 7 s"]
    assert all(may_succeed_later(message) for message in again)
    final = ["http_4xx: 404", "tls: x", "not_an_image: x", "refused_address: x", "", "anything else"]
    final += ["dns: no such host", "http_5xx: 501", "bad_redirect: x", "wrong_hash: x", "unknown url type: ''"]
    assert not any(may_succeed_later(message) for message in final)
    assert failure_of(socket.gaierror(socket.EAI_AGAIN, "later")).reason == "dns"
    assert may_succeed_later(str(failure_of(socket.gaierror(socket.EAI_AGAIN, "later"))))
    assert not may_succeed_later(str(failure_of(socket.gaierror(socket.EAI_NONAME, "never"))))


IMAGES = {
    "/good.jpg": "success",
    "/text.jpg": "success",
    "/gzip": "success",
    "/truncated": "success",  # whole as far as the server says; measuring finds it
    "/nothing": "empty",
    "/empty": "empty",
    "/svg": "not_an_image",
    "/html": "not_an_image",
    "/good.html": "not_an_image",
    "/png-bomb": "too_many_pixels",
    "/jpeg-bomb": "too_many_pixels",
    "/gif-bomb": "too_many_pixels",
    "/webp-bomb": "too_many_pixels",
    "/hundred-megapixels": "too_many_pixels",
    "/gzip-bomb": "too_large",
    "/noai": "disallowed",
    "/short": "cut_off",
    "/close": "connect",
    "/to-file": "bad_redirect",
    "/loop": "too_many_redirects",
    "/silent": "timeout",
}
QUICK = DownloadLimits(retries=0, processes=1, timeout=WAIT, total_timeout=WAIT, max_bytes=MOST)


def reasons(pool: Path) -> dict[str, str]:
    table = pq.read_table(pool / "00000.parquet").to_pylist()
    return {
        row["url"]: row["status"] if row["status"] == "success" else reason_of(row["error_message"]) for row in table
    }


def test_a_pool_from_a_hostile_server(server: HostileServer, tmp_path: Path) -> None:
    urls = [server.origin + path for path in IMAGES]
    more = {"file:///etc/passwd": "bad_url", "http://[::1/": "bad_url", "http://no-such.invalid/": "dns"}
    table = pa.table({"url": [*urls, *more], "caption": ["a caption"] * (len(urls) + len(more))})
    pq.write_table(table, tmp_path / "pairs.parquet")
    limits = DownloadLimits(**{name: getattr(QUICK, name) for name in QUICK.__slots__} | {"allow_private": True})
    report = download(tmp_path / "pairs.parquet", tmp_path / "pool", limits)
    expected = {**{server.origin + path: reason for path, reason in IMAGES.items()}, **more}
    assert reasons(tmp_path / "pool") == expected
    assert report.downloaded == 4 and report.asked == len(expected)

    before = server.asked.total()
    report = download(tmp_path / "pairs.parquet", tmp_path / "public", QUICK)
    assert report.failed == {"refused_address": len(urls), "bad_url": 2, "dns": 1}
    assert server.asked.total() == before  # nobody was asked anything
    assert pq.read_table(io.BytesIO((tmp_path / "public" / "00000.parquet").read_bytes())).num_rows == len(expected)
