"""Downloading a list of images against img2dataset's own command, one process and as many threads on both sides.

A small server on this machine's other core answers every address with a JPEG of 47 kB. Both sides keep the bytes as
they are, write shards and their tables, and start anew each time.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.bench.figure import Figure, peak_memory

IMAGES, THREADS, ROUNDS = 8_000, 32, 2

SERVER = """
import asyncio, sys
body = open(sys.argv[1], "rb").read()
head = "HTTP/1.1 200 OK", "Content-Type: image/jpeg", f"Content-Length: {len(body)}", "Connection: close", "", ""
answer = "\\r\\n".join(head).encode() + body
class One(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.asked = transport, b""
    def data_received(self, data):
        self.asked += data
        if self.asked.endswith(b"\\r\\n\\r\\n"):
            self.transport.write(answer)
            self.transport.close()
async def main():
    server = await asyncio.get_running_loop().create_server(One, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
OURS = """
import sys
from curate.acquire.download import DownloadLimits, download
pairs, out, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
if __name__ == "__main__":
    limits = DownloadLimits(allow_private=True, processes=1, threads=threads, samples_per_shard=1000, retries=0)
    print(download(pairs, out, limits).downloaded)
"""
THEIRS = """
import contextlib, os, sys
from img2dataset import download
import pyarrow.parquet as pq
from pathlib import Path
pairs, out, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        download(url_list=pairs, output_folder=out, input_format="parquet", output_format="webdataset", url_col="url",
                 caption_col="caption", resize_mode="no", disable_all_reencoding=True, thread_count=threads,
                 processes_count=1, number_sample_per_shard=1000, retries=0)
    tables = [pq.read_table(path, columns=["status"]) for path in Path(out).glob("*.parquet")]
    print(sum(table["status"].to_pylist().count("success") for table in tables))
"""


def run(work: Path) -> list[Figure]:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    (work / "image.jpg").write_bytes(image())
    sides: dict[str, tuple[float, float]] = {}
    with served(work / "image.jpg") as origin:
        urls = [f"{origin}/{number}.jpg" for number in range(IMAGES)]
        captions = [f"image {number}" for number in range(IMAGES)]
        pq.write_table(pa.table({"url": urls, "caption": captions}), work / "pairs.parquet")
        for turn in range(ROUNDS):
            for name, code in (("ours", OURS), ("theirs", THEIRS)):
                out = work / f"{name}-{turn}"
                seconds, memory, said = peak_memory(code, str(work / "pairs.parquet"), str(out), str(THREADS))
                if int(said.split()[-1]) != IMAGES:
                    raise AssertionError(f"{name} downloaded {said} of {IMAGES}")
                sides[name] = min(sides.get(name, (float("inf"), 0.0)), (seconds, memory))
    (ours, our_memory), (theirs, their_memory) = sides["ours"], sides["theirs"]
    detail = (
        f"{IMAGES / ours:,.0f} images/s and {our_memory:.2f} GiB against {IMAGES / theirs:,.0f} images/s and "
        f"{their_memory:.2f} GiB: {IMAGES:,} images of 47 kB, 1 process, {THREADS} threads, starts included"
    )
    return [Figure("curate download against img2dataset", theirs / ours, "x", detail=detail)]


def image() -> bytes:
    """A JPEG of some 47 kB."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((480, 360), Image.Resampling.BICUBIC).save(file, "JPEG", quality=80)
    return file.getvalue()


@contextmanager
def served(file: Path) -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", SERVER, str(file)], stdout=subprocess.PIPE, text=True) as process:
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
