"""A server of the tests, in a thread for as long as a block lasts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer
from typing import Protocol, TypeVar, cast


class Stoppable(Protocol):
    """A server whose handlers end when `stopping` is set."""

    stopping: threading.Event


Server = TypeVar("Server", bound=Stoppable)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Serve while the block runs; when it ends, no thread of the server is left."""
    base = cast(BaseServer, server)
    thread = threading.Thread(target=base.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        base.shutdown()
        base.server_close()
        thread.join()
