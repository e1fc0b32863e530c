"""From an iterator of requests to one of replies, through an event loop in a thread: so many at a time, no more."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from curate.recaption.chat.client import Client
from curate.recaption.chat.reply import Reply
from curate.recaption.contract import Request

_PREPARING = 4  # threads that read and shrink images
_JOIN = 10.0  # seconds for the loop to end


class Pump:
    """Puts requests to work in a loop of its own and hands out (request, reply), as they come. Use it as a context.

    The caller's own thread takes the requests and the replies, so nothing it iterates over has to be thread-safe, and
    nothing runs ahead of it: as many requests are held as `put` was called more often than `get`.
    """

    def __init__(self, client: Callable[[], Client], body: Callable[[Request], tuple[bytes, str] | Reply]) -> None:
        self._make_client, self._body = client, body
        self._done: queue.SimpleQueue[tuple[Request, Reply | BaseException]] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Reply]] = set()
        self._workers = ThreadPoolExecutor(_PREPARING, "recaption-image")
        self._thread = threading.Thread(target=self._run, name="recaption-endpoint", daemon=True)
        self._ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._over: asyncio.Event
        self.client: Client
        self.held = 0

    def __enter__(self) -> Pump:
        self._thread.start()
        if (error := self._ready.get()) is not None:
            raise error
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(_JOIN)
        self._workers.shutdown(wait=False, cancel_futures=True)

    def put(self, request: Request) -> None:
        self.held += 1
        self._loop.call_soon_threadsafe(self._begin, request)

    def get(self, timeout: float | None = None) -> tuple[Request, Reply | BaseException]:
        """The next reply. Raises queue.Empty if none comes in time."""
        item = self._done.get(timeout=timeout)
        self.held -= 1
        return item

    @property
    def waiting(self) -> bool:
        """Whether a reply lies ready."""
        return not self._done.empty()

    def stop(self) -> None:
        """Send nothing more; what was sent may still be answered, what was not comes back as a CancelledError."""
        self._loop.call_soon_threadsafe(lambda: self.client.stop(set(self._tasks)))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._live())
        finally:
            self._loop.close()

    async def _live(self) -> None:
        self._over = asyncio.Event()
        try:
            self.client = self._make_client()
            await self.client.__aenter__()
        except BaseException as error:
            self._ready.put(error)
            return
        self._ready.put(None)
        await self._over.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.client.__aexit__()

    def _begin(self, request: Request) -> None:
        task = self._loop.create_task(self._work(request))
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._end(request, ended))

    def _end(self, request: Request, task: asyncio.Task[Reply]) -> None:
        self._tasks.discard(task)
        self._done.put((request, asyncio.CancelledError() if task.cancelled() else task.exception() or task.result()))

    async def _work(self, request: Request) -> Reply:
        made = await self._loop.run_in_executor(self._workers, self._body, request)
        return made if isinstance(made, Reply) else await self.client.ask(*made)
