"""One request to a server until it is answered: tries, waits and limits. Nothing here knows of captions.

aiohttp, because it costs a fraction of a millisecond of processor time a request at 64 at a time, and httpx nine:
docs/recaption_endpoints.md.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import logging
import os
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from curate.errors import WorkError
from curate.recaption.chat.gate import Gate
from curate.recaption.chat.reply import Outcome, Reply, read_reply

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)
USER_AGENT = "curate/0.1 (recaption)"
_CONNECT = 15.0  # seconds to connect
_IDLE = 4.0  # seconds a connection is kept; uvicorn, under most of these servers, closes it after 5
_TRIES_TO_REACH = 4  # where nothing ever answered, a wrong address is likelier than an outage
_UNREACHED = "the connection failed"


@dataclass(frozen=True)
class Wire:
    """Where and how to ask. Times in seconds, sizes in bytes. `headers` holds the key: it is never shown."""

    setting: str  # what the settings call this, for messages
    url: str
    headers: dict[str, str] = field(repr=False)
    secret: str = field(repr=False)
    concurrency: int
    timeout: float  # for one try
    total_timeout: float  # for all tries of a request and the waits between them
    retries: int
    first_wait: float
    max_wait: float
    max_bytes: int


class Client:
    """Asks. It belongs to one event loop; use it as an asynchronous context."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.gate = Gate(wire.concurrency)
        self.tries = 0
        self._reached = False
        self._stopping = False
        self._sending: set[asyncio.Task[Any] | None] = set()
        self._told: set[str] = set()
        self._proxy = _proxy(wire.url)
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Client:
        import aiohttp

        # No cookies, no .netrc, no redirects; the timeouts are ours, around each try.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.wire.concurrency, keepalive_timeout=_IDLE),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def stop(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Send nothing more: of these tasks, those that wait to ask are cancelled, those that were sent may end."""
        self._stopping = True
        for task in tasks - self._sending:
            task.cancel()

    async def ask(self, body: bytes, idempotency_key: str) -> Reply:
        """The server's answer. One of AGAIN or LIMITED means that it was asked as often as the limits allow.

        Raises:
            WorkError: nothing ever answered at that address.
        """
        spent = 0.0
        for number in itertools.count(1):
            async with self.gate:
                began = time.monotonic()
                reply = await self._try(body, idempotency_key)
            spent += time.monotonic() - began
            if reply.outcome not in (Outcome.AGAIN, Outcome.LIMITED):
                self.gate.answered()
                return reply
            self._tell(reply)
            if not self._reached and number >= _TRIES_TO_REACH:
                raise WorkError(self._unreachable(reply))
            wait = self._wait(number, reply)
            # Being asked to wait is no failure: only the clock ends that.
            failed = reply.outcome is Outcome.AGAIN and number > self.wire.retries
            if self._stopping or failed or spent + wait > self.wire.total_timeout:
                return reply
            spent += wait
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    def _wait(self, number: int, reply: Reply) -> float:
        """Seconds before the next try: what the server asks for, else doubling; jitter keeps tries apart."""
        wait = min(self.wire.max_wait, self.wire.first_wait * 2.0 ** min(number - 1, 30)) * random.uniform(0.5, 1.0)
        if reply.wait is not None:
            wait = min(self.wire.max_wait, reply.wait) + min(wait, 0.1 * reply.wait)
        if reply.outcome is Outcome.LIMITED:
            self.gate.slower(wait if reply.wait is not None else 0.0)
        return wait

    async def _try(self, body: bytes, idempotency_key: str) -> Reply:
        """Ask once, within `timeout` seconds and `max_bytes` bytes."""
        import aiohttp

        task = asyncio.current_task()
        self._sending.add(task)
        self.tries += 1
        headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key} | self.wire.headers
        try:
            async with (
                asyncio.timeout(self.wire.timeout),
                self._session.post(
                    self.wire.url, data=io.BytesIO(body), headers=headers, allow_redirects=False, proxy=self._proxy
                ) as response,
            ):
                raw = await _read(response.content, self.wire.max_bytes)
                if self.wire.secret:  # some servers repeat the key that they refuse
                    raw = raw.replace(self.wire.secret.encode(), b"***")
                reply = read_reply(response.status, response.headers, raw, self.wire.max_bytes)
                if reply.outcome is not Outcome.AGAIN or reply.status >= 400:  # not a web page in its place
                    self._reached = True
        except aiohttp.ClientConnectorCertificateError as error:
            reply = Reply(Outcome.WRONG, error="the certificate is not valid", said=str(error.certificate_error))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            reply = Reply(Outcome.AGAIN, error=_UNREACHED, said=_why(error))
        except TimeoutError:
            self._reached = True  # somebody took the connection
            reply = Reply(Outcome.AGAIN, error="timeout")
        except (aiohttp.ClientError, OSError) as error:
            self._reached = True
            reply = Reply(Outcome.AGAIN, error="the connection broke", said=type(error).__name__)
        finally:
            self._sending.discard(task)
        return reply

    def _tell(self, reply: Reply) -> None:
        """Log each sort of trouble once."""
        if reply.error not in self._told:
            self._told.add(reply.error)
            said = f" ({reply.said})" if reply.said else ""
            log.warning("%s: %s%s; asking again, here and wherever it happens", self.wire.setting, reply.error, said)

    def _unreachable(self, reply: Reply) -> str:
        address, said = urlsplit(self.wire.url), f": {reply.said}" if reply.said else ""
        return (
            f"{self.wire.setting}: no server answers at {address.scheme}://{address.netloc}"
            f" ({reply.error}{said}); start it, or set base_url, and run the same command again"
        )


async def _read(stream: aiohttp.StreamReader, max_bytes: int) -> bytes:
    """The body, or its first bytes if it is longer than the limit."""
    body = bytearray()
    async for chunk in stream.iter_any():
        body += chunk
        if len(body) > max_bytes:
            break
    return bytes(body)


def _why(error: Exception) -> str:
    """A connection's failure in the system's own words, without addresses that change."""
    cause = getattr(error, "os_error", None) or error
    number = getattr(cause, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else type(cause).__name__


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for an address; none for this machine itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1" or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)
