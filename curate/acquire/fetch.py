"""Fetches pages politely and safely: robots.txt, pauses per host, limits on time, size and redirects."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
from protego import Protego

from curate.acquire.addresses import RefusedAddress, never_resolves
from curate.acquire.backend import CheckedBackend, deadline
from curate.acquire.failures import retry_after, status_reason
from curate.acquire.fetch_hosts import MOST_PAUSE, FetchFailure, Hosts
from curate.acquire.fetch_optout import product
from curate.acquire.html import absolute_url
from curate.acquire.robots import MOST_BYTES, rules_of

USER_AGENT = "curate/0.1 (image-text crawler)"
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_REDIRECTS = (301, 302, 303, 307, 308)
ASKING = ("x-robots-tag", "tdm-reservation", "content-language")  # headers that say how a page may be used


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How pages are fetched. Times in seconds, sizes in bytes."""

    allow_private: bool = False  # fetch from loopback and private addresses too
    user_agent: str = USER_AGENT
    timeout: float = 15.0  # for connecting and for each wait for data
    total_timeout: float = 60.0  # for each request as a whole
    max_bytes: int = 8_000_000  # of a page, after decompression
    max_redirects: int = 5
    retries: int = 2  # after the first try, for connection errors and 5xx
    pause: float = 0.0  # at least this long between two requests to one host; robots.txt may ask for more
    threads: int = 16  # pages fetched at a time
    threads_per_host: int = 4


@dataclass(frozen=True, slots=True)
class Page:
    """A fetched page: where it was found in the end, its bytes, and the charset that the server named."""

    url: str
    content: bytes
    charset: str | None
    headers: tuple[tuple[str, str], ...] = ()  # those of ASKING that it came with, names in lower case


class Fetcher:
    """Fetches pages; may be used from many threads. Close it, or use it as a context."""

    def __init__(self, limits: FetchLimits) -> None:
        self._limits = limits
        self._hosts = Hosts(
            self._robots, product(limits.user_agent), limits.pause, limits.threads_per_host, limits.retries
        )
        # Proxies from the environment are left aside: through one, the address could not be checked.
        transport = httpx.HTTPTransport(trust_env=False, limits=httpx.Limits(max_connections=limits.threads))
        transport._pool._network_backend = CheckedBackend(allow_private=limits.allow_private)
        self._client = httpx.Client(
            transport=transport,
            timeout=limits.timeout,
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": limits.user_agent, "Accept": "text/html", "Accept-Encoding": "gzip"},
        )

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def fetch(self, url: str) -> Page:
        """Fetches an HTML page, following redirects and trying again where that may help.

        Raises FetchFailure with the reason: bad_url, robots, refused_address, dns, connect, timeout, tls, cut_off,
        http_4xx, http_5xx, bad_redirect, too_many_redirects, too_large, not_html, protocol.
        """
        for attempt in range(self._limits.retries + 1):
            try:
                return self._follow(url)
            except FetchFailure as failed:
                if not failed.again or attempt == self._limits.retries or failed.wait > MOST_PAUSE:
                    raise
                time.sleep(max(failed.wait, min(0.25 * 4**attempt, 4.0)))
        raise AssertionError("unreachable")

    def _follow(self, url: str) -> Page:
        for _ in range(self._limits.max_redirects + 1):
            safe = absolute_url(url, url)
            if safe is None or not _has_port(safe):
                raise FetchFailure("bad_url")
            with self._hosts.turn(safe):
                answer = self._get(safe, self._limits.max_bytes, html_only=True)
            if isinstance(answer, Page):
                return answer
            url = (answer and absolute_url(answer, safe)) or ""
            if not url:
                raise FetchFailure("bad_redirect")
        raise FetchFailure("too_many_redirects")

    def _robots(self, origin: str) -> Protego:
        """The host's rules.

        Raises FetchFailure if the host cannot be reached or has an error, so that the page fails for that reason.
        """
        url = f"{origin}/robots.txt"
        try:
            for _ in range(self._limits.max_redirects + 1):
                answer = self._get(url, MOST_BYTES, html_only=False, cut=True)
                if isinstance(answer, Page):
                    return rules_of(answer.content)
                url = (answer and absolute_url(answer, url)) or ""
                if not url:
                    break
        except FetchFailure as failed:
            if failed.reason not in ("http_4xx", "protocol", "bad_redirect"):
                raise
        return rules_of(None)

    def _get(self, url: str, max_bytes: int, *, html_only: bool, cut: bool = False) -> Page | str:
        """One request without redirects: the page, or the address it points to. One too large is `cut`, or fails."""
        try:
            with (
                deadline(time.monotonic() + self._limits.total_timeout),
                self._client.stream("GET", url) as response,
            ):
                if response.status_code in _REDIRECTS:
                    return response.headers.get("location", "")[:8192]
                _check(response, html_only=html_only)
                asking = tuple((name, value) for name, value in response.headers.multi_items() if name in ASKING)
                return Page(url, _read(response, max_bytes, cut), response.charset_encoding, asking)
        except RefusedAddress as refused:
            raise FetchFailure("refused_address") from refused
        except httpx.TimeoutException as late:
            raise FetchFailure("timeout", again=True) from late
        except httpx.ConnectError as failed:
            tls = "SSL" in str(failed) or "certificate" in str(failed)
            raise FetchFailure("tls" if tls else "connect", again=not tls) from failed
        except httpx.NetworkError as failed:
            raise FetchFailure("connect", again=True) from failed
        except httpx.RemoteProtocolError as failed:
            raise _broken(str(failed)) from failed
        except httpx.InvalidURL as failed:  # ours is valid: it is a redirect's, which httpx looks at
            raise FetchFailure("bad_redirect") from failed
        except (httpx.HTTPError, httpx.StreamError) as failed:
            raise FetchFailure("protocol") from failed
        except socket.gaierror as failed:  # from our own resolving
            raise FetchFailure("dns", again=not never_resolves(failed)) from failed
        except OSError as failed:
            raise FetchFailure("connect", again=True) from failed


def _check(response: httpx.Response, *, html_only: bool) -> None:
    """Raises FetchFailure unless the answer is a body that can be read."""
    status = response.status_code
    if status != 200:
        reason = status_reason(status)
        wait = retry_after(response.headers.get("retry-after")) if status in (429, 503) else None
        again = status in (408, 425, 429) or (reason == "http_5xx" and status not in (501, 505))
        raise FetchFailure(reason, again=again, wait=wait or 0.0)
    # Brotli and zstd can blow a few bytes up to gigabytes in one step; gzip's limit is a thousandfold.
    if response.headers.get("content-encoding", "identity").lower() not in ("identity", "gzip", "deflate"):
        raise FetchFailure("protocol")
    kind = response.headers.get("content-type", "text/html").split(";")[0].strip().lower()
    if html_only and kind not in _HTML_TYPES:
        raise FetchFailure("not_html")


def _has_port(url: str) -> bool:
    """Whether the address names no port, or one that there can be."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _broken(message: str) -> FetchFailure:
    """The failure of a connection that ended early or was no HTTP, by what h11 says of it."""
    if "without sending a response" in message:
        return FetchFailure("connect", again=True)
    if "location header" in message:
        return FetchFailure("bad_redirect")
    return FetchFailure("cut_off", again=True) if "message body" in message else FetchFailure("protocol")


def _read(response: httpx.Response, max_bytes: int, cut: bool) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes(65536):
        body += chunk
        if len(body) > max_bytes:
            if cut:
                return bytes(body[:max_bytes])
            raise FetchFailure("too_large")
    return bytes(body)
