"""The urllib opener that img2dataset's threads download with: checked addresses, limits, telling errors.

img2dataset calls `urllib.request.urlopen` and keeps only the text of an error. So this opener refuses what is
unsafe (files, FTP, private addresses at every redirect, endless bodies) and every error's text starts with
one of the words in `REASONS`.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from curate.acquire.addresses import RefusedAddress, connect
from curate.acquire.html import absolute_url

REASONS = (
    "dns",
    "connect",
    "timeout",
    "tls",
    "http_4xx",
    "http_5xx",
    "too_large",
    "too_small",
    "refused_address",
    "disallowed",  # the server's X-Robots-Tag forbids the use
    "not_an_image",
    "bad_url",
    "other",
)
_RETRYABLE = frozenset({"dns", "connect", "timeout", "http_5xx"})
_MAX_REDIRECTS = 5


class DownloadFailure(Exception):
    """`reason` is one of REASONS; the text is "reason: detail"."""

    def __init__(self, reason: str, detail: object = "") -> None:
        super().__init__(f"{reason}: {str(detail)[:200]}")
        self.reason = reason


class _Raw(io.RawIOBase):
    """Reads from a socket's raw stream, and never past the deadline (monotonic seconds)."""

    def __init__(self, inner: socket.SocketIO, sock: socket.socket, timeout: float, deadline: float) -> None:
        self._inner, self._sock, self._timeout, self._deadline = inner, sock, timeout, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the whole download took too long")
        self._sock.settimeout(min(left, self._timeout))
        return self._inner.readinto(buffer)

    def close(self) -> None:
        self._inner.close()
        super().close()


def _response_class(timeout: float, total: float, max_bytes: int) -> type[http.client.HTTPResponse]:
    class Response(http.client.HTTPResponse):
        """A response whose headers and body must arrive before the deadline, the body within `max_bytes`."""

        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
            super().__init__(sock, *args, **kwargs)
            self.fp.close()
            raw = sock.makefile("rb", buffering=0)
            self.fp = io.BufferedReader(_Raw(raw, sock, timeout, time.monotonic() + total))

        def read(self, amount: int | None = None) -> bytes:
            if amount is not None:
                return super().read(amount)
            body = super().read(max_bytes + 1)
            if len(body) > max_bytes:
                raise DownloadFailure("too_large", f"more than {max_bytes} bytes")
            expected = self.headers.get("Content-Length", "")
            if expected.isdecimal() and len(body) < int(expected) and not self.chunked:
                raise http.client.IncompleteRead(body, int(expected) - len(body))
            return body

    return Response


def _connections(
    *, allow_private: bool, response_class: type[http.client.HTTPResponse], timeout: float
) -> tuple[Callable[..., http.client.HTTPConnection], Callable[..., http.client.HTTPSConnection]]:
    """HTTP and HTTPS connections to checked addresses; TLS certificates are still checked against the name."""

    def dial(host: str, port: int) -> socket.socket:
        return connect(host, port, timeout, allow_private=allow_private)

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = dial(self.host, self.port)

    class Tls(http.client.HTTPSConnection):
        def connect(self) -> None:
            self.sock = _context().wrap_socket(dial(self.host, self.port), server_hostname=self.host)

    Plain.response_class = Tls.response_class = response_class
    return Plain, Tls


_contexts: list[ssl.SSLContext] = []


def _context() -> ssl.SSLContext:
    """One context for all connections: reading the certificates costs milliseconds each time."""
    if not _contexts:
        _contexts.append(ssl.create_default_context())
    return _contexts[0]


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _MAX_REDIRECTS
    max_repeats = 2


class SafeOpener(urllib.request.OpenerDirector):
    """An opener for http and https only, whose errors are all DownloadFailure."""

    def open(self, fullurl: Any, data: Any = None, timeout: Any = None) -> Any:
        request = fullurl if isinstance(fullurl, urllib.request.Request) else urllib.request.Request(fullurl)
        url = absolute_url(request.full_url, "")
        if url is None:
            raise DownloadFailure("bad_url", "not an http or https address")
        request.full_url = url  # percent-encoded, which urllib does not do by itself
        try:
            response: Any = super().open(request, data, timeout)
        except Exception as error:
            raise failure_of(error) from error
        read = response.read

        def read_or_fail(amount: int | None = None) -> bytes:
            try:
                return read(amount)
            except Exception as error:
                raise failure_of(error) from error

        response.read = read_or_fail
        return response


def failure_of(error: BaseException) -> DownloadFailure:
    """The error as a DownloadFailure with its reason."""
    if isinstance(error, DownloadFailure):
        return error
    if isinstance(error, urllib.error.HTTPError):
        if "not allowed" in str(error.msg):  # urllib's own words for a redirect to file: and the like
            return DownloadFailure("refused_address", "redirected away from http")
        kind = {4: "http_4xx", 5: "http_5xx"}.get(error.code // 100, "other")
        return DownloadFailure(kind, error.code)
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return failure_of(error.reason)
    for kind, types in _KINDS:
        if isinstance(error, types):
            return DownloadFailure(kind, error)
    return DownloadFailure("other", f"{type(error).__name__} {error}")


# In this order: all of the first four are OSError too.
_KINDS: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
    ("refused_address", (RefusedAddress,)),
    ("dns", (socket.gaierror,)),
    ("tls", (ssl.SSLError,)),
    ("timeout", (TimeoutError,)),
    ("connect", (OSError, http.client.HTTPException)),
    ("bad_url", (ValueError,)),
)


def reason_of(message: str) -> str:
    """The reason in an error text that img2dataset kept; one of REASONS."""
    reason = message.split(":", 1)[0]
    if reason in REASONS:
        return reason
    if "X-Robots-Tag" in message:
        return "disallowed"
    return "bad_url" if message.startswith("unknown url type") else "other"


def may_succeed_later(message: str) -> bool:
    """Whether the failure with this error text is worth another try."""
    return reason_of(message) in _RETRYABLE or message.startswith(("http_4xx: 408", "http_4xx: 429"))


def safe_opener(*, allow_private: bool, timeout: float, total: float, max_bytes: int) -> SafeOpener:
    """An opener with the limits: `timeout` seconds per wait, `total` seconds per request, `max_bytes` per body."""
    response_class = _response_class(timeout, total, max_bytes)
    plain, tls = _connections(allow_private=allow_private, response_class=response_class, timeout=timeout)

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(plain, req)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(tls, req)

    opener = SafeOpener()
    # No handler for file:, ftp: and data:, and no proxies: through one, the address could not be checked.
    for handler in (
        Http(),
        Https(),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
