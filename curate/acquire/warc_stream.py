"""Opens archives wherever they are: files here, http(s) with checked addresses, any fsspec store such as s3://."""

from __future__ import annotations

import io
import time
from typing import Any, BinaryIO

import fsspec
import httpx
from fsspec.implementations.local import LocalFileSystem

from curate.acquire.addresses import RefusedAddress
from curate.acquire.backend import CheckedBackend
from curate.acquire.fetch import FetchLimits
from curate.acquire.html import absolute_url
from curate.errors import RequestError

_BLOCK = 1 << 20  # bytes read ahead from a store
_MAX_REDIRECTS = 5


def open_archive(source: str, limits: FetchLimits) -> BinaryIO:
    """A stream of a file's bytes.

    Raises:
        RequestError: no such kind of store, or what it needs is not installed.
        OSError: it cannot be opened.
    """
    if source.lower().startswith(("http://", "https://")):
        return io.BufferedReader(_HttpStream(source, limits), _BLOCK)
    try:
        fs, path = fsspec.core.url_to_fs(source)
    except (ImportError, ValueError) as wrong:
        raise RequestError(f"{source}: {wrong}") from wrong
    if isinstance(fs, LocalFileSystem):
        return open(path, "rb", _BLOCK)  # noqa: PTH123 the caller closes it
    stream: BinaryIO = fs.open(path, "rb", block_size=8 * _BLOCK, cache_type="readahead")
    return stream


class _HttpStream(io.RawIOBase):
    """A download that goes on where it broke, as often as `limits.retries` says for one place in the file."""

    def __init__(self, url: str, limits: FetchLimits) -> None:
        transport = httpx.HTTPTransport(trust_env=False)
        transport._pool._network_backend = CheckedBackend(allow_private=limits.allow_private)
        self._client = httpx.Client(
            transport=transport, timeout=limits.timeout, trust_env=False, headers={"User-Agent": limits.user_agent}
        )
        self._url, self._limits, self._place, self._left = url, limits, 0, b""
        self._response: httpx.Response | None = None
        self._chunks: Any = iter(())
        try:
            self._connect()
        except BaseException:
            self._client.close()
            raise

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = 0) -> int:
        """Goes to a place from the start of the file."""
        if whence != 0:
            raise io.UnsupportedOperation("only from the start of the file")
        if place != self._place:
            self._place, self._left = place, b""
            self._connect()
        return place

    def readinto(self, buffer: Any) -> int:
        for attempt in range(self._limits.retries + 1):
            try:
                if not self._left:
                    self._left = next(self._chunks, b"")
                break
            except (httpx.HTTPError, OSError) as broken:
                if attempt == self._limits.retries:
                    raise OSError(f"the connection broke: {broken}") from broken
                time.sleep(min(0.25 * 4**attempt, 4.0))
                self._connect()
        part, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(part)] = part
        self._place += len(part)
        return len(part)

    def _connect(self) -> None:
        """Asks for the rest of the file. Raises OSError if it cannot be had."""
        for _ in range(_MAX_REDIRECTS + 1):
            if self._response is not None:
                self._response.close()
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={self._place}-"} if self._place else {})
            try:
                request = self._client.build_request("GET", self._url, headers=headers)
                response = self._response = self._client.send(request, stream=True)
            except RefusedAddress as refused:
                raise OSError(f"refused_address: {refused}") from refused
            except (httpx.HTTPError, httpx.InvalidURL) as failed:
                raise OSError(f"{type(failed).__name__}: {failed}") from failed
            if 300 <= response.status_code < 400:
                self._url = absolute_url(response.headers.get("location", "")[:8192], self._url) or ""
                if not self._url:
                    raise OSError("redirected away from http")
                continue
            if response.status_code != (206 if self._place else 200):
                raise OSError(f"the server answered {response.status_code}")
            self._chunks = response.iter_raw()  # as it comes: larger chunks would be lost with the connection
            return
        raise OSError("too many redirects")

    def close(self) -> None:
        if not self.closed:
            if self._response is not None:
                self._response.close()
            self._client.close()
        super().close()
