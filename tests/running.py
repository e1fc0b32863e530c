"""What tests run beside themselves: a server in a thread for as long as a block lasts, Python without compiled code."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import BaseServer
from typing import Protocol, TypeVar, cast


class Stoppable(Protocol):
    """A server whose handlers end when `stopping` is set."""

    stopping: threading.Event


Server = TypeVar("Server", bound=Stoppable)


def uncompiled(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Python with these arguments, in which compiled functions are plain ones, where a wrong index raises."""
    return subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        cwd=Path(__file__).parents[1],
        text=True,
        capture_output=True,
        check=False,
    )


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
