"""Serves a folder over real HTTP on this machine only, for the demo and the tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from curate.demo.pages import ORIGIN

_TYPES = {
    ".html": "text/html",  # no charset: as on much of the web, the page itself says it
    ".txt": "text/plain; charset=utf-8",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive
    timeout = 30  # seconds; an idle connection is closed
    disable_nagle_algorithm = True  # headers and body are two writes; waiting for the first's ack costs 40 ms

    def __init__(self, *args: object, root: Path, **kwargs: object) -> None:
        self.root = root  # before the call, because it answers the request
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    @property
    def origin(self) -> str:
        return str(self.server.origin)  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        target = (self.root / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        inside = target.is_relative_to(self.root)
        hidden = not inside or any(part.startswith(".") for part in target.relative_to(self.root).parts)
        if hidden or not target.is_file():
            self.send_error(404)
            return
        body = target.read_bytes()
        if target.suffix == ".html":
            body = body.replace(ORIGIN.encode(), self.origin.encode())
        self.send_response(200)
        self.send_header("Content-Type", _TYPES.get(target.suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: thousands of requests would drown the command's own lines."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing: a client that hangs up early is no error of ours."""


@contextmanager
def serve(folder: Path, port: int = 0) -> Iterator[str]:
    """Serves `folder` on 127.0.0.1 while the context is open; gives the origin, as "http://127.0.0.1:40123".

    `port` 0 takes a free one; a fixed one makes image addresses, and so uids, the same in every run. Raises
    OSError if the port is taken.
    """
    server = _Server(("127.0.0.1", port), partial(_Handler, root=folder.resolve()))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.origin
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
