"""Hosts that pages are fetched from: what each asks for, and when it is a page's turn."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from protego import Protego

# Seconds. A longer Crawl-delay is not kept in full, and a host with a longer Retry-After is given up until then.
MOST_PAUSE = 30.0
_HOSTS = 10_000  # that are remembered; the rules of one can take some 100 kB


class FetchFailure(Exception):
    """A page that could not be had; `reason` is one of a short list of words that reports count by."""

    def __init__(self, reason: str, *, again: bool = False, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again = again  # whether trying again may help
        self.wait = wait  # seconds that the server asked to wait


@dataclass(slots=True)
class _Host:
    """What is known about one scheme, host and port."""

    slots: threading.Semaphore
    users: int = 0  # threads that have a page of it at hand
    lock: threading.Lock = field(default_factory=threading.Lock)
    robots: Protego | None = None
    pause: float = 0.0
    next_at: float = 0.0  # monotonic time from which the next request may go out
    failures: int = 0  # times that robots.txt could not be reached
    dead: FetchFailure | None = None  # set once it is given up, so that its other pages fail at once
    dead_until: float = math.inf  # monotonic time

    def wait(self) -> None:
        """Sleep until the next request may go out."""
        with self.lock:
            now = time.monotonic()
            start = max(now, self.next_at)
            self.next_at = start + self.pause
        if start > now:
            time.sleep(start - now)

    def rest(self, told: FetchFailure) -> None:
        """Leave the host alone with all pages, if it asked for that; its lock is held."""
        now = time.monotonic()
        if told.wait > MOST_PAUSE:
            self.dead, self.dead_until = told, now + told.wait
        elif told.wait:
            self.next_at = max(self.next_at, now + told.wait)

    def is_idle(self) -> bool:
        """Whether nothing is lost but its rules if it is forgotten."""
        now = time.monotonic()
        return not self.users and self.next_at <= now and not now < self.dead_until < math.inf


class Hosts:
    """The hosts of one crawl; may be used from many threads.

    Args:
        rules: reads what the robots.txt of an origin allows; raises FetchFailure if the host cannot be reached.
        agent: our name in the rules.
        pause: seconds between two requests to one host; its rules may ask for more.
        threads: requests to one host at a time.
        retries: times that unreachable rules are tried again before a host is given up.
    """

    def __init__(self, rules: Callable[[str], Protego], agent: str, pause: float, threads: int, retries: int) -> None:
        self._rules, self._agent, self._pause, self._threads, self._retries = rules, agent, pause, threads, retries
        self._hosts: OrderedDict[str, _Host] = OrderedDict()  # in the order of their last use
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, url: str) -> Iterator[None]:
        """The turn of a page at its host: a request may go out in the block.

        Raises FetchFailure: robots, or why the host cannot be asked. One that the block raises is heeded, too.
        """
        with self._used(url) as host:
            if host.robots is not None and not host.robots.can_fetch(url, self._agent):
                raise FetchFailure("robots")
            with host.slots:
                host.wait()
                try:
                    yield
                except FetchFailure as failed:
                    with host.lock:
                        host.rest(failed)
                    raise

    @contextmanager
    def _used(self, url: str) -> Iterator[_Host]:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            if origin not in self._hosts:
                self._hosts[origin] = _Host(threading.Semaphore(max(1, self._threads)))
            host = self._hosts[origin]
            host.users += 1
            self._hosts.move_to_end(origin)
        try:
            with host.lock:  # the first thread reads robots.txt, the others wait for it
                self._ready(host, origin)
            yield host
        finally:
            with self._lock:
                host.users -= 1
                self._forget()

    def _ready(self, host: _Host, origin: str) -> None:
        """Read the rules of a host, if they are not known."""
        if host.dead is not None and time.monotonic() < host.dead_until:
            raise FetchFailure(host.dead.reason)
        if host.robots is not None:
            return
        try:
            host.robots = self._rules(origin)
        except FetchFailure as failed:
            host.rest(failed)
            host.failures += 1
            if not failed.again or host.failures > self._retries:
                host.dead = failed
            raise
        asked = host.robots.crawl_delay(self._agent)
        host.pause = max(self._pause, min(float(asked or 0.0), MOST_PAUSE))

    def _forget(self) -> None:
        """Drop hosts that were not used for longest."""
        excess = len(self._hosts) - _HOSTS
        if excess > 0:
            oldest = itertools.islice(self._hosts.items(), excess + _HOSTS // 10)
            idle = (origin for origin, host in oldest if host.is_idle())
            for origin in list(itertools.islice(idle, excess)):
                del self._hosts[origin]
