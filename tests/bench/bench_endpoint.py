"""Captions through a server that answers after 50 ms, 64 at a time: requests a second against what that allows.

The server runs in a process of its own and does nothing but wait, so what is measured is the client: reading images,
base64, JSON, HTTP and the queue between the threads. On a machine with few cores the two share them.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.queues import Queue
from pathlib import Path

from curate.recaption.backends.endpoint import Endpoint
from curate.recaption.contract import Request
from tests.bench.figure import Figure
from tests.conftest import encoded, photo
from tests.curate.chat_server import completion

REQUESTS, AT_ONCE, SECONDS = 3000, 64, 0.05
SIZE = (500, 375)


def run(work: Path) -> list[Figure]:
    ports: Queue[int] = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(ports,), daemon=True)
    server.start()
    try:
        backend = Endpoint(base_url=f"http://127.0.0.1:{ports.get()}/v1", model="m", concurrency=AT_ONCE)
        images = [encoded(photo(number, SIZE)) for number in range(50)]
        list(backend.write(requests(images, 200)))  # what is imported and connected once
        began, cpu = time.perf_counter(), time.process_time()
        answers = sum(answer.error is None for answer in backend.write(requests(images, REQUESTS)))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    finally:
        server.kill()
    assert answers == REQUESTS
    rate, ideal = REQUESTS / seconds, AT_ONCE / SECONDS
    size = sum(map(len, images)) / len(images) / 1000
    detail = (
        f"{rate:,.0f}/s against {ideal:,.0f}/s, images of {size:.0f} kB sent as they are; "
        f"{1000 * cpu / REQUESTS:.2f} ms of processor time a request"
    )
    return [
        Figure("captions through an endpoint against what its answers allow", rate / ideal, "x", 0.5, detail=detail)
    ]


def requests(images: list[bytes], count: int) -> Iterator[Request]:
    for number in range(count):
        yield Request(f"u{number}", 0, "Describe the image in one sentence.", number, "", images[number % len(images)])


def serve(ports: Queue[int]) -> None:
    answer = completion("a picture of something that lies there")
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n".encode()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                headers = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = headers.split(b"content-length:")[1].split(b"\r\n")[0]
                await reader.readexactly(int(length))
                await asyncio.sleep(SECONDS)
                writer.write(head + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def live() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 22, backlog=512)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(live())
