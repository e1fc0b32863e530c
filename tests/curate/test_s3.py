"""Pools and datasets at s3://, on a real S3 server (moto's) over HTTP on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import storage
from curate.acquire.download import DownloadLimits, download
from curate.cli import run
from curate.pool import open_pool
from curate.storage import Folder
from tests.conftest import encoded, pair, photo, write_pool
from tests.curate.hostile import serving

SECRET = "not-to-be-printed"
RECIPE = "name: s3\nfilters:\n  - image_size: {min_side: 32}\n  - exact_duplicates: {}\n  - caption_rules: {}\n"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The endpoint of a server with the buckets `pools` and `datasets`, named by the usual variables."""
    pytest.importorskip("s3fs", reason="s3:// needs s3fs")
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        endpoint(patch, f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "user")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for bucket in ("pools", "datasets"):
            s3fs.S3FileSystem().mkdir(bucket)
        yield f"http://{host}:{port}"
        endpoint(patch, "http://127.0.0.1:9")
    server.stop()


def endpoint(patch: pytest.MonkeyPatch, url: str) -> None:
    """Point this process, and those that it starts, to an endpoint."""
    import s3fs

    patch.setenv("AWS_ENDPOINT_URL", url)
    s3fs.S3FileSystem.clear_instance_cache()
    storage._resolved.cache_clear()


def keys(bucket: str) -> list[str]:
    """All objects of a bucket as the server has them."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    return sorted(s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[bucket].keys)


def fetched(url: str, *endings: str) -> dict[str, bytes]:
    folder = Folder(url)
    found = {path[len(folder.root) + 1 :]: path for path in folder.fs.find(folder.root)}
    return {name: folder.fs.cat_file(path) for name, path in sorted(found.items()) if name.endswith(endings)}


def local(folder: Path, *endings: str) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name.endswith(endings)
    }


def test_a_download_to_s3_is_the_same_as_a_local_one(
    s3: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving() as web:
        urls = [f"{web.origin}/good.jpg?{n}" for n in range(10)] + [f"{web.origin}/missing", f"{web.origin}/busy"]
        table = pa.table({"url": urls, "caption": [f"caption {n}" for n in range(12)]})
        pq.write_table(table, tmp_path / "pairs.parquet")
        Folder("s3://pools/in").write_parquet("pairs.parquet", table)
        limits = DownloadLimits(allow_private=True, processes=2, samples_per_shard=4, retries=1, retry_pause=1.0)
        here = download(tmp_path / "pairs.parquet", tmp_path / "pool", limits)
        web.busy_until = 0.0  # it is busy again
        there = download("s3://pools/in/pairs.parquet", "s3://pools/web", limits)
        assert (there.downloaded, there.failed, there.bytes) == (11, {"http_4xx": 1}, here.bytes)
        assert fetched("s3://pools/web", ".tar") == local(tmp_path / "pool", ".tar")
        assert len(open_pool("s3://pools/web").shards) == here.shards

        asked = web.asked.total()
        command = ["download", "s3://pools/in/pairs.parquet", "s3://pools/web", "--allow-private", "--retries", "1"]
        assert run(["-v", *command, "--samples-per-shard", "4"]) == 0  # finished: returns its report
        Folder("s3://pools/web").fs.rm_file("pools/web/00001.tar")
        before = fetched("s3://pools/web", ".tar")
        again = download("s3://pools/in/pairs.parquet", "s3://pools/web", limits)
        assert again.redone == 1 and fetched("s3://pools/web", ".tar") == local(tmp_path / "pool", ".tar") != before
        assert web.asked.total() - asked == 4
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err
    assert not any(SECRET.encode() in data for data in fetched("s3://pools/web", ".json", ".log").values())
    assert not any("tmp" in key or "part" in key for key in keys("pools"))


@pytest.fixture(scope="module")
def pool(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local pool of 24 samples in 3 shards, and the same at s3://pools/pool."""
    folder = write_pool(tmp_path_factory.mktemp("pool"), [pair(number % 20) for number in range(24)])
    for shard in folder.glob("*.tar"):
        Folder("s3://pools/pool").fs.put_file(str(shard), f"pools/pool/{shard.name}")
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    return str(path)


DATASET = (".tar", ".parquet")


@pytest.fixture(scope="module")
def dataset(pool: Path, recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of the local pool, and that of the pool at s3:// at s3://datasets/out."""
    out = tmp_path_factory.mktemp("dataset") / "out"
    assert run(["filter", str(pool), str(out), "-r", recipe, "--workers", "1"]) == 0
    assert run(["measure", "s3://pools/pool", "-r", recipe, "--workers", "2"]) == 0
    assert run(["filter", "s3://pools/pool", "s3://datasets/out", "-r", recipe, "--workers", "2"]) == 0
    return out


def test_a_dataset_at_s3_is_the_same_as_a_local_one(dataset: Path) -> None:
    ours = local(dataset, *DATASET)
    assert fetched("s3://datasets/out", *DATASET) == ours
    assert {"selection.parquet", "shards/00000.tar", "shards/00000.parquet"} <= set(ours)
    here, there = (
        json.loads((dataset / "manifest.json").read_text()),
        Folder("s3://datasets/out").read_json("manifest.json"),
    )
    for step in (*here["funnel"], *there["funnel"]):
        step.pop("seconds")
    assert there["funnel"] == here["funnel"]
    assert SECRET not in json.dumps(there)


def test_report_and_explain_read_s3(dataset: Path, capfd: pytest.CaptureFixture[str]) -> None:
    uid = pq.read_table(dataset / "selection.parquet")["uid"][0].as_py()
    assert run(["report", "s3://datasets/out"]) == 0
    assert run(["explain", "s3://datasets/out", uid]) == 0
    said = capfd.readouterr()
    assert uid in said.out and SECRET not in said.out + said.err
    assert b"data:image" in Folder("s3://datasets/out").read_bytes("report.html")


def test_a_killed_filter_resumes_to_the_same_bytes_and_shows_no_half_object(
    pool: Path, recipe: str, dataset: Path
) -> None:
    command = [sys.executable, "-m", "curate.cli", "filter", "s3://pools/pool", "s3://datasets/killed", "-r", recipe]
    command += ["--workers", "1", "--cache", "s3://datasets/killed-features"]
    killed = subprocess.Popen(command, start_new_session=True)
    seen, deadline = set[str](), time.monotonic() + 120
    while killed.poll() is None and not seen and time.monotonic() < deadline:
        seen = {key for key in keys("datasets") if key.startswith(("killed/", "killed-features/"))}
        time.sleep(0.005)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert killed.returncode == -signal.SIGKILL and seen
    for key in seen:  # what is there is whole
        if key.endswith(".parquet"):
            assert Folder("s3://datasets").read_bytes(key).endswith(b"PAR1")
    assert not Folder("s3://datasets/killed").exists("manifest.json")
    assert run(command[3:]) == 0
    assert fetched("s3://datasets/killed", *DATASET) == local(dataset, *DATASET)


def test_training_and_evaluation_read_s3(
    s3: str, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from trainer import scales
    from trainer.tasks.write import write_classification_task

    model = {
        "embed_dim": 16,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        "custom_text": True,
    }
    nano = scales.Scale("nano", model, samples_seen=32, batch_size=8, image_size=32, precision="fp32", workers=0)
    monkeypatch.setitem(scales.SCALES, "nano", nano)
    results = []
    for name, shards in (("local", str(pool)), ("s3", "s3://pools/pool")):
        out = str(tmp_path / name)
        assert run(["train", shards, out, "--scale", "nano", "--device", "cpu"]) == 0
        results.append(json.loads((tmp_path / name / "train.json").read_text())["loss"])
    assert results[0] == results[1]

    items = [(encoded(photo(number)), number % 2) for number in range(6)]
    task = write_classification_task(tmp_path / "task", items, ["one", "two"], ["a {c}"])
    for path in task.rglob("*"):
        if path.is_file():
            Folder("s3://datasets/task").fs.put_file(str(path), f"datasets/task/{path.relative_to(task)}")
    capfd.readouterr()
    scores = []
    for where in (str(task), "s3://datasets/task"):
        assert run(["evaluate", str(tmp_path / "s3"), where, "--json"]) == 0
        (found,) = json.loads(capfd.readouterr().out)
        scores.append(found.get("value", found))
    assert scores[0] == scores[1]


@contextmanager
def unreliable(target: str) -> Iterator[tuple[str, list[str]]]:
    """A proxy in front of a server: of every path, the first request is answered 503, the second is reset."""
    host, port = target.removeprefix("http://").split(":")
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.1)
    seen: list[str] = []
    stop = threading.Event()

    def serve(client: socket.socket) -> None:
        with client:
            head = client.recv(65536)
            line = head.split(b"\r\n")[0].decode()
            seen.append(line)
            if seen.count(line) == 1:
                client.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            if seen.count(line) == 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return
            with socket.create_connection((host, int(port))) as upstream:
                upstream.sendall(head)
                back = threading.Thread(target=_pipe, args=(upstream, client))
                back.start()
                _pipe(client, upstream)
                back.join()

    def accept() -> None:
        while not stop.is_set():
            try:
                client, _ = listening.accept()
            except TimeoutError:
                continue
            client.setblocking(True)
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", seen
    finally:
        stop.set()
        thread.join()
        listening.close()


def _pipe(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_errors_of_the_store_are_tried_again(s3: str, pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with unreliable(s3) as (proxy, seen):
        endpoint(monkeypatch, proxy)
        assert Folder("s3://pools/pool").read_bytes("00000.tar") == (pool / "00000.tar").read_bytes()
        Folder("s3://datasets/unreliable").write_bytes("a/b.bin", b"whole")
        assert Folder("s3://datasets/unreliable").read_bytes("a/b.bin") == b"whole"
        assert sum("00000.tar" in line for line in seen) >= 3
    endpoint(monkeypatch, s3)


@pytest.mark.parametrize("where", ["s3", "here"])
def test_of_writers_at_the_same_instant_one_creates_the_file(s3: str, where: str, tmp_path: Path) -> None:
    folder = Folder("s3://pools/created" if where == "s3" else str(tmp_path / "created"))
    if where == "here":
        (tmp_path / "created").mkdir()

    def create(writer: int) -> bool:
        try:
            folder.create_json("0.json", {"writer": writer})
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(create, range(8)))
    assert sum(created) == 1
    winner = created.index(True)
    assert folder.read_json("0.json") == {"writer": winner}
    assert create(winner)  # whose answer was lost
    assert [Path(path).name for path in folder.fs.ls(folder.root, detail=False)] == ["0.json"]


def test_more_objects_than_one_answer_lists(s3: str) -> None:
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    store = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for number in range(1005):
        store.put_object("pools", f"many/{number:05d}.tar", b"x")
    shards = open_pool("s3://pools/many").shards
    assert [shard.name for shard in shards] == [f"{number:05d}.tar" for number in range(1005)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["filter", "s3://no-such-bucket/pool", "s3://datasets/x"], "POOL: s3://no-such-bucket/pool does not exist"),
        (["filter", "s3://pools/pool", "s3://no-such-bucket/out", "-r", "{recipe}", "--workers", "1"], "s3://no-such-bucket/out"),
        (["download", "{pairs}", "s3://no-such-bucket/pool"], "s3://no-such-bucket/pool"),
        (["download", "s3://pools/nothing.parquet", "s3://pools/x"], "s3://pools/nothing.parquet: cannot be read"),
        (["filter", "s4://pools/pool", "out"], "s4://pools/pool: Protocol not known: s4"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_clear_line(
    pool: Path, recipe: str, tmp_path: Path, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.table({"url": ["http://a.example/"], "caption": ["a"]}), tmp_path / "p")
    assert run([word.format(recipe=recipe, pairs=tmp_path / "p") for word in arguments]) in (1, 2)
    said = [line for line in capfd.readouterr().err.split("\n") if line.startswith("curate:")]
    assert len(said) == 1 and message in said[0] and SECRET not in said[0]


def test_a_server_that_is_gone_and_no_credentials(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["filter", "s3://pools/pool", str(tmp_path / "out")]
    endpoint(monkeypatch, "http://127.0.0.1:9")
    assert run(command) == 1
    gone = capfd.readouterr().err
    assert 'Could not connect to the endpoint URL: "http://127.0.0.1:9' in gone and "Traceback" not in gone
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    endpoint(monkeypatch, s3)
    assert run(command) == 1
    nobody = capfd.readouterr().err
    assert "curate: Unable to locate credentials" in nobody and "Traceback" not in nobody
    monkeypatch.undo()
    endpoint(monkeypatch, s3)


def test_a_pool_behind_a_web_server_is_read_only(
    pool: Path, dataset: Path, recipe: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    shutil.copytree(pool, tmp_path / "www", ignore=shutil.ignore_patterns("_features"))
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "www")))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{web.server_port}"
    arguments = ["filter", url, str(tmp_path / "out"), "-r", recipe, "--workers", "1"]
    assert run([*arguments, "--cache", str(tmp_path / "features")]) == 0
    assert local(tmp_path / "out", ".tar") == local(dataset, ".tar")
    assert run(arguments) == 2  # its features cannot be put there
    assert f"curate: {url}/_features: nothing can be written to a web server" in capfd.readouterr().err
    web.shutdown()
    web.server_close()
