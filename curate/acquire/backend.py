"""The network layer under httpx: connects only to checked addresses, and never past a request's deadline.

httpx limits each wait for data, so a server that sends one byte now and then could hold a thread for days.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore

from curate.acquire.addresses import RefusedAddress, resolve

_current = threading.local()  # the deadline of this thread's request; all reading is done in that thread
_MAX_ADDRESSES = 4  # tried per host


@contextmanager
def deadline(at: float) -> Iterator[None]:
    """Requests of this thread in this context end with a timeout at the monotonic time `at`."""
    _current.deadline = at
    try:
        yield
    finally:
        _current.deadline = None


def _remaining(timeout: float | None) -> float | None:
    """The shorter of the timeout and the time to the deadline; raises httpcore.ReadTimeout past it."""
    at: float | None = getattr(_current, "deadline", None)
    if at is None:
        return timeout
    left = at - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the whole request took too long")
    return left if timeout is None else min(left, timeout)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _remaining(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _remaining(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, _remaining(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class CheckedBackend(httpcore.SyncBackend):
    """Resolves names itself and connects to the very address that was checked."""

    def __init__(self, *, allow_private: bool) -> None:
        super().__init__()
        self._allow_private = allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Raises RefusedAddress, socket.gaierror, or httpcore's errors."""
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in resolve(host, port, allow_private=self._allow_private)[:_MAX_ADDRESSES]:
            try:
                left = _remaining(timeout)
                return _Stream(super().connect_tcp(address, port, left, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                failure = failed
        raise failure or httpcore.ConnectError("no address")

    def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        raise RefusedAddress("a local socket is not a public address")
