"""What robots.txt files allow: RFC 9309, with wildcards."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from protego import Protego

from curate.acquire.failures import DownloadFailure

MOST_BYTES = 512 * 1024  # of a robots.txt; what comes behind does not hold
_HOSTS = 20_000  # whose rules are remembered


def rules_of(content: bytes | None) -> Protego:
    """The rules in a robots.txt; with None, where there is none (4xx), all is allowed.

    A host with an error (5xx) allows nothing. That is its failure, and may be over later.
    """
    return Protego.parse("" if content is None else content[:MOST_BYTES].decode("utf-8-sig", "replace"))


class Robots:
    """The rules of the hosts that one process asks for images; each robots.txt is read once.

    Args:
        read: gives the first bytes of an address, None if there is nothing; raises DownloadFailure if the host cannot
            be reached or has an error, so that the image fails for that reason and is tried again as for that.
        agent: our name in the rules.
    """

    def __init__(self, read: Callable[[str], bytes | None], agent: str) -> None:
        self._read, self._agent = read, agent
        self._rules: OrderedDict[str, Protego] = OrderedDict()
        self._reading: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def check(self, url: str) -> None:
        """Raises DownloadFailure("robots") if the host asks to leave the address alone."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            reading = self._reading.setdefault(origin, threading.Lock())
        try:
            with reading:  # the first thread reads, the others wait for it
                rules = self._rules.get(origin) or rules_of(self._read(f"{origin}/robots.txt"))
                self._remember(origin, rules)
        finally:
            with self._lock:
                self._reading.pop(origin, None)
        if not rules.can_fetch(url, self._agent):
            raise DownloadFailure("robots", "its host's robots.txt asks to leave it alone")

    def _remember(self, origin: str, rules: Protego) -> None:
        with self._lock:
            self._rules[origin] = rules
            self._rules.move_to_end(origin)
            if len(self._rules) > _HOSTS:
                self._rules.popitem(last=False)
