"""The opener that img2dataset downloads with, against a server that misbehaves."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from curate.acquire import addresses
from curate.acquire.opener import DownloadFailure, SafeOpener, may_succeed_later, reason_of, safe_opener
from tests.curate.test_acquire_server import Server, hostile_server, jpeg


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with hostile_server() as server:
        yield server


def opener(*, allow_private: bool = True) -> SafeOpener:
    return safe_opener(allow_private=allow_private, timeout=1.0, total=1.5, max_bytes=200_000)


def read(opener: SafeOpener, url: str) -> bytes:
    with opener.open(url, timeout=1.0) as response:
        return response.read()


def reason(opener: SafeOpener, url: str) -> str:
    with pytest.raises(DownloadFailure) as failed:
        read(opener, url)
    assert reason_of(str(failed.value)) == failed.value.reason
    return failed.value.reason


def test_an_image_arrives_whole_also_with_odd_characters_in_its_address(server: Server) -> None:
    assert read(opener(), f"{server.origin}/ä b.jpg") == jpeg()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/missing", "http_4xx"),
        ("/broken", "http_5xx"),
        ("/endless", "too_large"),
        ("/drip", "timeout"),
        ("/short", "connect"),
        ("/to-file", "refused_address"),
        ("/loop", "other"),
    ],
)
def test_reasons(server: Server, path: str, expected: str) -> None:
    started = time.monotonic()
    assert reason(opener(), server.origin + path) == expected
    assert time.monotonic() - started < 6


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///etc/passwd", "bad_url"),
        ("ftp://127.0.0.1/a.jpg", "bad_url"),
        ("data:image/png;base64,AAAA", "bad_url"),
        ("http://no-such-host.invalid/a.jpg", "dns"),
        ("http://127.0.0.1:9/a.jpg", "connect"),
    ],
)
def test_addresses_that_cannot_be_had(url: str, expected: str) -> None:
    assert reason(opener(), url) == expected


def test_private_addresses_are_refused(server: Server) -> None:
    assert reason(opener(allow_private=False), f"{server.origin}/a.jpg") == "refused_address"


@pytest.mark.parametrize("path", ["/to-private", "/to-metadata"])
def test_a_redirect_to_a_private_address_is_refused(server: Server, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = addresses.resolve

    def as_if_public(host: str, port: int, *, allow_private: bool) -> list[str]:
        return real(host, port, allow_private=allow_private or port == server.server_port)

    monkeypatch.setattr(addresses, "resolve", as_if_public)
    asking = opener(allow_private=False)
    assert read(asking, f"{server.origin}/a.jpg") == jpeg()
    assert reason(asking, server.origin + path) == "refused_address"


def test_which_failures_are_tried_again() -> None:
    again = ["dns: x", "timeout: x", "connect: x", "http_5xx: 503", "http_4xx: 429"]
    assert all(may_succeed_later(message) for message in again)
    final = ["http_4xx: 404", "tls: x", "not_an_image: x", "refused_address: x", "", "anything else"]
    assert not any(may_succeed_later(message) for message in final)
