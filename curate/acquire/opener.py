"""The opener that img2dataset's threads download with: checked addresses, limits, telling errors.

img2dataset calls `urllib.request.urlopen` and keeps only the text of an error. urllib's own handlers follow
redirects to anywhere and read without end, so here is the little of HTTP that images need: GET, redirects that
are checked like the first address, one deadline over all of it, and errors that `curate.acquire.failures` names.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

from curate.acquire.addresses import connect
from curate.acquire.failures import DownloadFailure, failure_of, retry_after, status_failure
from curate.acquire.fetch_optout import product, refusal
from curate.acquire.html_urls import absolute_url
from curate.acquire.robots import MOST_BYTES, Robots

_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 65536
_ASKING = ("x-robots-tag", "tdm-reservation")
SKIP = "retried-later:"  # an address that is not asked for: another shard has it
_waiting: dict[str, tuple[float, int]] = {}  # origin -> until when (monotonic) it asked to be left alone, and how
_waiting_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class OpenerLimits:
    """What one download may cost. Times in seconds, sizes in bytes."""

    allow_private: bool = False
    timeout: float = 10.0  # for connecting and for each wait for data
    total: float = 60.0  # for the download as a whole, redirects and all
    max_bytes: int = 30_000_000  # of a file, also after decompression
    robots: bool = False  # ask each host's robots.txt


class _Raw(io.RawIOBase):
    """Reads from a socket's raw stream, and never past the deadline (monotonic seconds)."""

    def __init__(self, inner: socket.SocketIO, sock: socket.socket, timeout: float, deadline: float) -> None:
        self._inner, self._sock, self._timeout, self._deadline = inner, sock, timeout, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(min(_left(self._deadline), self._timeout))
        return self._inner.readinto(buffer)

    def close(self) -> None:
        self._inner.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response whose headers and body must arrive before the deadline."""

    def __init__(self, sock: socket.socket, *args: Any, timeout: float, deadline: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        raw: Any = sock.makefile("rb", buffering=0)
        self.fp = io.BufferedReader(_Raw(raw, sock, timeout, deadline))


class Answer:
    """A successful response, as img2dataset uses it: headers, and a body that is read once."""

    def __init__(self, response: http.client.HTTPResponse, connection: http.client.HTTPConnection, limit: int) -> None:
        self._response, self._connection, self._limit = response, connection, limit
        self.headers: Message = response.headers

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._response.close()
        self._connection.close()

    def read(self) -> bytes:
        """The whole body, decompressed. Raises DownloadFailure: too_large, cut_off, timeout, protocol, …"""
        try:
            coding = self.headers.get("Content-Encoding", "identity").strip().lower()
            if coding in ("identity", ""):
                return self._plain()
            # Brotli and zstd can blow a few bytes up to gigabytes in one step.
            if coding not in ("gzip", "x-gzip", "deflate"):
                raise DownloadFailure("protocol", f"content encoding {coding}")
            return self._inflated()
        except Exception as error:
            raise failure_of(error) from error

    def _plain(self) -> bytes:
        expected = self._response.length  # what the server announced; None if nothing, or in chunks
        if expected is not None and expected > self._limit:
            raise DownloadFailure("too_large", f"{expected} bytes, over {self._limit}")
        body = self._response.read(self._limit + 1)
        if expected is not None and len(body) < expected:
            raise http.client.IncompleteRead(b"", expected - len(body))
        if len(body) > self._limit:
            raise DownloadFailure("too_large", f"more than {self._limit} bytes")
        return body

    def _inflated(self) -> bytes:
        body, inflate, came = bytearray(), zlib.decompressobj(47), 0  # 47: zlib's and gzip's header
        while chunk := self._response.read(_CHUNK):
            came += len(chunk)
            while chunk:
                body += inflate.decompress(chunk, self._limit + 1 - len(body))
                if max(came, len(body)) > self._limit:
                    raise DownloadFailure("too_large", f"more than {self._limit} bytes when decompressed")
                chunk = inflate.unconsumed_tail or inflate.unused_data
                if inflate.eof and chunk:
                    inflate = zlib.decompressobj(47)
        if not inflate.eof:
            raise http.client.IncompleteRead(b"")
        return bytes(body)


class SafeOpener(urllib.request.OpenerDirector):
    """An opener for http and https only, whose errors are all DownloadFailure."""

    def __init__(self, limits: OpenerLimits, agent: str = "") -> None:
        super().__init__()
        self._limits, self._agent = limits, agent
        self._robots = Robots(self._rules, agent) if limits.robots else None

    def open(self, fullurl: Any, data: Any = None, timeout: Any = None) -> Any:
        request = fullurl if isinstance(fullurl, urllib.request.Request) else urllib.request.Request(fullurl)
        if request.full_url.startswith(SKIP):
            raise DownloadFailure("other", "tried again in a later shard")
        url = absolute_url(request.full_url, "")
        if url is None:
            raise DownloadFailure("bad_url", "not an http or https address")
        try:
            return self._follow(url, dict(request.header_items()))
        except Exception as error:
            raise failure_of(error) from error

    def _follow(self, url: str, headers: Mapping[str, str]) -> Answer:
        answer, connection, url = self._last(url, headers, self._robots)
        try:
            self._check(answer, url)
        except BaseException:
            answer.close()
            connection.close()
            raise
        return Answer(answer, connection, self._limits.max_bytes)

    def _last(
        self, url: str, headers: Mapping[str, str], robots: Robots | None
    ) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection, str]:
        """What answers behind all redirects, and its address."""
        deadline = time.monotonic() + self._limits.total
        for _ in range(_MAX_REDIRECTS + 1):
            if robots is not None:
                robots.check(url)
            answer, connection = self._ask(url, headers, deadline)
            if answer.status not in _REDIRECTS:
                return answer, connection, url
            try:
                url = _target(answer, url)
            finally:
                answer.close()
                connection.close()
        raise DownloadFailure("too_many_redirects", f"more than {_MAX_REDIRECTS}")

    def _rules(self, url: str) -> bytes | None:
        """The beginning of a robots.txt; one that is redirected to nowhere is as good as none."""
        try:
            answer, connection, _ = self._last(url, {"User-Agent": self._agent, "Accept-Encoding": "identity"}, None)
        except DownloadFailure as failed:
            if failed.reason in ("bad_redirect", "too_many_redirects"):
                return None
            raise
        with Answer(answer, connection, MOST_BYTES) as whole:
            if answer.status >= 500:
                raise status_failure(answer.status)
            if answer.status // 100 != 2:
                return None
            if answer.headers.get("Content-Encoding"):  # although none was asked for
                return whole.read()
            return answer.read(MOST_BYTES)

    def _ask(
        self, url: str, headers: Mapping[str, str], deadline: float
    ) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
        """Send the request and read the headers of what comes, on a new connection."""
        parts, limits = urlsplit(url), self._limits
        _leave_alone(f"{parts.scheme}://{parts.netloc}")
        host, tls = parts.hostname or "", parts.scheme == "https"
        connection = http.client.HTTPConnection(host, parts.port or (443 if tls else 80))
        try:
            sock = connect(host, connection.port, limits.timeout, deadline, allow_private=limits.allow_private)
            connection.sock = sock
            if tls:
                sock.settimeout(min(_left(deadline), limits.timeout))
                connection.sock = _context().wrap_socket(sock, server_hostname=host)
                connection.default_port = 443  # which the Host header leaves out
            connection.sock.settimeout(min(_left(deadline), limits.timeout))
            kind: Any = partial(_Response, timeout=limits.timeout, deadline=deadline)
            connection.response_class = kind
            target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
            connection.request("GET", target, headers={**headers, "Connection": "close"})
            return connection.getresponse(), connection
        except BaseException:
            connection.close()
            raise

    def _check(self, answer: http.client.HTTPResponse, url: str) -> None:
        """Raises DownloadFailure unless the answer is a success whose use is not forbidden."""
        if not 200 <= answer.status < 300:
            asked = retry_after(answer.headers.get("Retry-After")) if answer.status in (429, 503) else None
            if asked:
                parts = urlsplit(url)
                with _waiting_lock:
                    _waiting[f"{parts.scheme}://{parts.netloc}"] = (time.monotonic() + asked, answer.status)
            raise status_failure(answer.status, asked)
        said = [(name.lower(), value) for name, value in answer.headers.items() if name.lower() in _ASKING]
        if why := refusal(said, (), self._agent):
            raise DownloadFailure("disallowed", why)


def _leave_alone(origin: str) -> None:
    """Raises the failure again that a host answered with, as long as it asked not to be asked (Retry-After)."""
    with _waiting_lock:
        until, status = _waiting.get(origin, (0.0, 0))
        left = until - time.monotonic()
        if left <= 0:
            _waiting.pop(origin, None)
            return
    raise status_failure(status, left)


def _target(answer: http.client.HTTPResponse, url: str) -> str:
    """Where a redirect leads to; raises DownloadFailure if that is no http or https address."""
    location = answer.headers.get("Location", "")[:8192]
    with contextlib.suppress(UnicodeError):  # http.client reads headers as Latin-1; servers mean UTF-8
        location = location.encode("latin-1").decode()
    target = absolute_url(location, url) if location else None
    if target is None:
        raise DownloadFailure("bad_redirect", f"{answer.status} to {location.split(':', 1)[0][:20]!r}")
    return target


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the whole download took too long")
    return left


@cache
def _context() -> ssl.SSLContext:
    """One context for all connections: reading the certificates costs milliseconds each time."""
    return ssl.create_default_context()


def safe_opener(limits: OpenerLimits, user_agent: str = "") -> SafeOpener:
    """An opener with the limits. `user_agent` is our name: what headers say to others is not said to us."""
    return SafeOpener(limits, product(user_agent))
