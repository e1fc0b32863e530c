"""A server that breaks every rule of HTTP, and TLS servers with certificates that must not be trusted; on loopback."""

from __future__ import annotations

import datetime
import gzip
import io
import ipaddress
import socket
import socketserver
import ssl
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image

from tests.running import running

PAGE = b"<img src=/good.jpg alt='a page'>"


def jpeg(size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


def png_bomb(side: int = 60_000) -> bytes:
    """A PNG of a few kB whose header says side × side, and whose data would fill some of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(4_000_000)))
        + chunk(b"IEND", b"")
    )


def jpeg_bomb() -> bytes:
    """A real JPEG whose header was changed to 65,500 × 65,500."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    return bytes(data)


def animated_bomb(kind: str) -> bytes:
    """Two frames of 16 × 16 on a canvas that was changed to 16,383 × 16,383 (65,535 for a GIF)."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(
        buffer, kind, save_all=True, append_images=[Image.new("RGB", (16, 16), (255, 0, 0))]
    )
    data = bytearray(buffer.getvalue())
    if kind == "GIF":
        data[6:10] = struct.pack("<HH", 65_535, 65_535)
    else:
        at = data.index(b"VP8X") + 12
        data[at : at + 6] = (16_382).to_bytes(3, "little") * 2
    return bytes(data)


def answer(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    announced = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {announced}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def image(body: bytes, *headers: str) -> bytes:
    return answer(body, "Content-Type: image/jpeg", *headers)


def page(body: bytes, *headers: str) -> bytes:
    return answer(body, "Content-Type: text/html", *headers)


def to(location: str) -> bytes:
    return answer(b"", f"Location: {location}", status="302 Found")


CHUNKED = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
BOMB = gzip.compress(bytes(30_000_000))
ANSWERS: dict[str, bytes] = {
    "/robots.txt": answer(b"", status="404 Not Found"),
    "/good.jpg": image(jpeg()),
    "/good.html": page(PAGE),
    "/text.jpg": answer(jpeg(), "Content-Type: text/plain"),
    "/to-file": to("file:///etc/passwd"),
    "/to-data": to("data:image/png;base64,AAAA"),
    "/to-ftp": to("ftp://example.com/a.jpg"),
    "/to-script": to("javascript:alert(1)"),
    "/to-password": to("http://user:secret@example.com/a.jpg"),
    "/to-nowhere": answer(b"", status="302 Found"),
    "/to-private": to("http://10.0.0.1/a.jpg"),
    "/to-loopback": to("http://127.0.0.1:8080/a.jpg"),
    "/to-metadata": to("http://169.254.169.254/latest/meta-data/"),
    "/to-v6": to("http://[::1]/a.jpg"),
    "/to-mapped": to("http://[::ffff:10.0.0.1]/a.jpg"),
    "/to-decimal": to("http://2130706433/a.jpg"),
    "/to-octal": to("http://0177.0.0.1/a.jpg"),
    "/to-hex": to("http://0x7f000001/a.jpg"),
    "/to-short": to("http://127.1/a.jpg"),
    "/to-any": to("http://0/a.jpg"),
    "/to-name": to("http://localhost/a.jpg"),
    "/to-inside": to("http://inside.example/a.jpg"),
    "/to-mail": to("http://93.184.216.34:25/a.jpg"),
    "/to-good": to("/good.jpg"),
    "/to-page": to("/good.html"),
    "/loop": to("/loop"),
    "/long": answer(jpeg() + b"more than was announced", length=len(jpeg())),
    "/short": answer(jpeg(), length=100_000),
    "/huge": answer(jpeg(), length=10**12),
    "/odd-length": answer(jpeg()).replace(b"Content-Length: ", b"Content-Length: x"),
    "/no-length": b"HTTP/1.0 200 OK\r\n\r\n" + jpeg(),
    "/chunked": CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(jpeg()), jpeg()),
    "/short-chunk": CHUNKED + b"ffff\r\n" + jpeg(),
    "/bad-chunk": CHUNKED + b"zz\r\n" + jpeg(),
    "/gzip": image(gzip.compress(jpeg()), "Content-Encoding: gzip"),
    "/gzip-page": page(gzip.compress(PAGE), "Content-Encoding: gzip"),
    "/gzip-bomb": page(BOMB, "Content-Encoding: gzip"),
    "/gzip-short": page(gzip.compress(jpeg())[:-20], "Content-Encoding: gzip"),
    "/gzip-junk": page(b"no gzip at all", "Content-Encoding: gzip"),
    "/brotli": page(b"\x1b\x03\x00", "Content-Encoding: br"),
    "/not-http": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "/no-status": b"HTTP/1.1 abc\r\n\r\n",
    "/long-header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    "/close": b"",
    "/nothing": answer(b"", status="204 No Content"),
    "/unchanged": answer(b"", status="304 Not Modified"),
    "/forbidden": answer(b"", status="403 Forbidden"),
    "/gone": answer(b"", status="410 Gone"),
    "/broken": answer(b"", status="500 Oh"),
    "/unable": answer(b"", status="501 No"),
    "/noai": image(jpeg(), "X-Robots-Tag: noai"),
    "/noai-us": image(jpeg(), "x-robots-tag: otherbot: all, curate: noimageai"),
    "/noai-page": page(PAGE, "X-Robots-Tag: noai"),
    "/reserved": image(jpeg(), "TDM-Reservation: 1"),
    "/noai-other": image(jpeg(), "X-Robots-Tag: otherbot: noai"),
    "/empty": image(b""),
    "/truncated": image(jpeg((640, 480))[:-500]),
    "/svg": answer(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "Content-Type: image/svg+xml"),
    "/html": page(b"<title>Not found</title>"),
    "/png-bomb": image(png_bomb()),
    "/jpeg-bomb": image(jpeg_bomb()),
    "/gif-bomb": image(animated_bomb("GIF")),
    "/webp-bomb": image(animated_bomb("WEBP")),
    "/hundred-megapixels": image(png_bomb(10_001)),
}  # fmt: skip


class HostileServer(socketserver.ThreadingTCPServer):
    """Answers GETs with ANSWERS, byte for byte, and some without end. `asked` counts paths, `heads` keeps requests."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.context = context
        self.asked: Counter[str] = Counter()
        self.heads: list[bytes] = []
        self.stopping = threading.Event()
        self.busy_until = 0.0

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def origin(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        connection.settimeout(5)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class _Handler(socketserver.BaseRequestHandler):
    server: HostileServer

    def handle(self) -> None:
        connection: socket.socket = self.request
        if self.server.context is not None:
            connection = self.server.context.wrap_socket(connection, server_side=True)
        head = b""
        while b"\r\n\r\n" not in head and (more := connection.recv(65536)):
            head += more
        self.server.heads.append(head)
        path = head.split(b" ")[1].split(b"?")[0].decode("latin-1") if b" " in head else ""
        self.server.asked[path] += 1
        endless = self._endless(path)
        if endless is None:
            status = answer(b"", status="404 Not Found")
            connection.sendall(self._special(path) or ANSWERS.get(path, status))
        else:
            first, again, pause = endless
            connection.sendall(first)
            while not self.server.stopping.is_set():
                connection.sendall(again)
                time.sleep(pause)
        if self.server.context is not None:
            connection.close()

    def _special(self, path: str) -> bytes | None:
        if path == "/busy":  # asks to wait a second, once
            if self.server.busy_until == 0.0:
                self.server.busy_until = time.monotonic() + 1.0
            if time.monotonic() < self.server.busy_until:
                return answer(b"", "Retry-After: 1", status="429 Too Many Requests")
            return image(jpeg((32, 32)))
        if path == "/busy-long":
            return answer(b"", "Retry-After: 86400", status="503 Service Unavailable")
        return None

    @staticmethod
    def _endless(path: str) -> tuple[bytes, bytes, float] | None:
        start = b"HTTP/1.1 200 OK\r\n"
        return {
            "/endless": (start + b"Content-Type: text/html\r\n\r\n", b"x" * 65536, 0.001),
            "/endless-headers": (start, b"X-Again: and again\r\n" * 10_000, 0.001),
            "/endless-redirect": (b"HTTP/1.1 302 Found\r\nLocation: /good.jpg\r\n\r\n", b"x" * 65536, 0.001),
            "/endless-continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
            "/drip": (start + b"Content-Type: text/html\r\n\r\n", b"x", 0.1),
            "/drip-headers": (start, b"X", 0.1),
            "/drip-chunks": (CHUNKED, b"1\r\nx\r\n", 0.1),
            "/silent": (b"", b"", 0.1),
        }.get(path)  # fmt: skip


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[HostileServer]:
    with running(HostileServer(context)) as server:
        yield server


def authority(folder: Path) -> tuple[Path, Callable[..., ssl.SSLContext]]:
    """A certificate authority: its certificate as a file, and what makes a server's context with one of its own.

    The function takes the name or address that the certificate is for, `days` until it expires (negative: long ago),
    and `trusted`: whether the authority signed it, and not the server itself.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
    root = _certificate(name, name, key.public_key(), key, 30, None)
    path = folder / "authority.pem"
    path.write_bytes(root.public_bytes(serialization.Encoding.PEM))

    def context(host: str, days: int = 30, trusted: bool = True) -> ssl.SSLContext:
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
        signed = _certificate(
            subject, name if trusted else subject, own.public_key(), key if trusted else own, days, host
        )
        pem = folder / f"{host}{days}{trusted}.pem"
        private = own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        pem.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        found.load_cert_chain(pem)
        return found

    return path, context


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    days: int,
    host: str | None,
) -> x509.Certificate:
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - datetime.timedelta(days=60))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if host is not None:
        names: list[x509.GeneralName] = [x509.DNSName(host)]
        with suppress(ValueError):
            names = [x509.IPAddress(ipaddress.ip_address(host))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256())
