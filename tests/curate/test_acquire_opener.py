"""The opener that img2dataset downloads with: what it asks, and what it gives. Refusals: test_acquire_hostile."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest

from curate.acquire.failures import DownloadFailure
from curate.acquire.opener import SKIP, OpenerLimits, SafeOpener, safe_opener
from tests.curate.hostile import HostileServer, jpeg, serving


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with serving() as server:
        yield server


@pytest.fixture
def images() -> SafeOpener:
    return safe_opener(OpenerLimits(allow_private=True), "Curate/1 (crawler)")


@pytest.mark.parametrize("path", ["/good.jpg", "/gzip", "/chunked", "/no-length", "/long", "/to-good", "/noai-other"])
def test_an_image_arrives_as_it_is(server: HostileServer, images: SafeOpener, path: str) -> None:
    with images.open(server.origin + path) as response:
        assert response.read() == jpeg()


def test_the_request_is_a_plain_get_with_the_headers_given(server: HostileServer, images: SafeOpener) -> None:
    url = f"{server.origin}/ä b.jpg?q=ü#part"
    with pytest.raises(DownloadFailure, match="http_4xx: 404"):
        images.open(urllib.request.Request(url, headers={"User-Agent": "curate (x@example.com)"}))
    assert server.heads[-1].decode().split("\r\n") == [
        "GET /%C3%A4%20b.jpg?q=%C3%BC HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        "Accept-Encoding: identity",
        "User-agent: curate (x@example.com)",
        "Connection: close",
        "",
        "",
    ]


def test_what_another_shard_has_is_not_asked_for(images: SafeOpener) -> None:
    with pytest.raises(DownloadFailure, match="other: tried again in a later shard"):
        images.open(SKIP)
