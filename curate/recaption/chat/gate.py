"""How many requests may be on their way at a time: fewer when the server says that they are too many."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque

_CALM = 1.0  # seconds between two halvings: the answers to one burst come together and count once


class Gate:
    """Lets at most `limit` through at a time. `slower` halves that, each answer raises it again by a little.

    Additive increase and multiplicative decrease find the rate a server allows without knowing it (Chiu and Jain
    1989, the way of TCP). It belongs to one event loop. Leaving never waits, so that a reply in hand is never lost.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed_until = 0.0  # monotonic
        self._halved = 0.0

    async def __aenter__(self) -> None:
        try:
            while True:
                if (pause := self._closed_until - time.monotonic()) > 0:
                    await asyncio.sleep(pause * random.uniform(1.0, 1.1))
                elif self._busy < int(self.limit):
                    self._busy += 1
                    return
                else:
                    turn = asyncio.get_running_loop().create_future()
                    self._waiting.append(turn)
                    await turn
        except asyncio.CancelledError:
            self._wake()  # it may have been this one's turn
            raise

    async def __aexit__(self, *_: object) -> None:
        self._busy -= 1
        self._wake()

    def answered(self) -> None:
        self.limit = min(float(self.most), self.limit + 1.0 / self.limit)
        self._wake()

    def slower(self, pause: float) -> None:
        """The server is asked too much: halve what goes out, and nothing for `pause` seconds."""
        now = time.monotonic()
        self._closed_until = max(self._closed_until, now + pause)
        if now - self._halved > _CALM:
            self._halved, self.limit = now, max(1.0, self.limit / 2)

    def _wake(self) -> None:
        """Let as many try as there is room for; who finds none waits again."""
        room = int(self.limit) - self._busy
        while room > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1
