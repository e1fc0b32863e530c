"""A server that misbehaves in every way that a crawler must survive; over real HTTP on loopback."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

from tests.running import running


def jpeg(colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # the default of 5 drops connections when many threads ask at once

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.stopping = threading.Event()
        rules = ("Disallow: /secret/", "Allow: /secret/open/", "Disallow: /*/print/", "Disallow: /*?session=")
        self.robots = "\n".join(["User-agent: *", *rules])

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked[path] += 1
        html = {"Content_Type": "text/html; charset=utf-8"}
        if path == "/robots.txt":
            self._send(200, self.server.robots.encode(), Content_Type="text/plain")
        elif path.endswith(".html"):
            self._send(200, f"<img src=/a.jpg alt='from {path}'>".encode(), **html)
        elif path.endswith(".jpg"):
            self._send(200, jpeg(), Content_Type="image/jpeg")
        elif path == "/wrong-charset":
            self._send(200, "<img src=/a.jpg alt='Größe'>".encode("latin-1"), Content_Type="text/html; charset=x")
        elif path == "/to-file":
            self._send(302, Location="file:///etc/passwd")
        elif path == "/to-private":
            self._send(302, Location="http://127.0.0.1:9/a.jpg")
        elif path == "/to-metadata":
            self._send(302, Location="http://169.254.169.254/latest/meta-data/")
        elif path == "/to-page":
            self._send(301, Location="/redirected.html")
        elif path == "/loop":
            self._send(302, Location=f"/loop?{self.server.asked[path]}")
        elif path == "/endless":
            self._endless(b"x" * 65536, 0.0)
        elif path == "/drip":
            self._endless(b"x", 0.2)
        elif path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(jpeg())
            self.close_connection = True
        elif path == "/broken" or (path.startswith("/once/") and self.server.asked[path] == 1):
            self._send(503)
        elif path.startswith("/once/"):
            self._send(200, jpeg((30, 200, 30)), Content_Type="image/jpeg")
        elif path == "/forbidden-use":
            self._send(200, jpeg(), Content_Type="image/jpeg", X_Robots_Tag="noai")
        elif path == "/noai":
            self._send(200, b"<img src=/a.jpg alt=x>", X_Robots_Tag="noai", **html)
        elif path == "/bomb":
            self._send(200, b"<p>" + b" " * 10, Content_Type="text/html", Content_Encoding="br")
        elif path == "/not-html":
            self._send(200, b"{}", Content_Type="application/json")
        else:
            self._send(404)

    def _endless(self, chunk: bytes, pause: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.close_connection = True
        while not self.server.stopping.is_set():
            self.wfile.write(chunk)
            time.sleep(pause)


@contextmanager
def hostile_server() -> Iterator[Server]:
    with running(Server()) as server:
        yield server
