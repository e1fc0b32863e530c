"""How many requests may be on their way at a time: fewer when the server says that they are too many."""

from __future__ import annotations

import asyncio
import random
import time

_CALM = 1.0  # seconds between two halvings: the answers to one burst come together and count once


class Gate:
    """Lets at most `limit` through at a time. `slower` halves that, each answer raises it again by a little.

    Additive increase and multiplicative decrease find the rate a server allows without knowing it (Chiu and Jain
    1989, the way of TCP). It belongs to one event loop.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self._busy = 0
        self._free = asyncio.Condition()
        self._closed_until = 0.0  # monotonic
        self._halved = 0.0

    async def __aenter__(self) -> None:
        while True:
            while (pause := self._closed_until - time.monotonic()) > 0:
                await asyncio.sleep(pause * random.uniform(1.0, 1.1))
            async with self._free:
                await self._free.wait_for(lambda: self._busy < max(1, int(self.limit)))
                if self._closed_until <= time.monotonic():
                    self._busy += 1
                    return

    async def __aexit__(self, *_: object) -> None:
        async with self._free:
            self._busy -= 1
            self._free.notify(2)

    def answered(self) -> None:
        self.limit = min(float(self.most), self.limit + 1.0 / max(1.0, self.limit))

    def slower(self, pause: float) -> None:
        """The server is asked too much: halve what goes out, and nothing for `pause` seconds."""
        now = time.monotonic()
        self._closed_until = max(self._closed_until, now + pause)
        if now - self._halved > _CALM:
            self._halved, self.limit = now, max(1.0, self.limit / 2)
