"""A real Prefect server for the tests, on PostgreSQL where its programs are here, else on SQLite."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 400.0  # seconds: a busy machine starts a server slowly


@dataclass(frozen=True)
class PrefectServer:
    """A server that runs, and the environment that commands need to find it."""

    url: str
    environment: dict[str, str]
    no_postgres: str | None
    """Why it runs on SQLite, if it does."""

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


def wait_for(what: str, found: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Ask again and again until there is an answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if answer := found():
                return answer
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def find_postgres() -> tuple[Path | None, str | None]:
    """The folder of PostgreSQL's programs, or why it cannot be used."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not places or not (places[-1] / "initdb").exists():
        return None, "PostgreSQL is not installed here (no initdb): the Prefect server ran on SQLite"
    if os.getuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return None, "PostgreSQL refuses to run as root, and there is no user postgres: SQLite instead"
    return places[-1], None


@contextlib.contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """Run PostgreSQL on a free port of loopback; yields the URL of its database as Prefect wants it."""
    folder = Path(tempfile.mkdtemp(prefix="curate-postgres-"))
    other: dict[str, Any] = {}
    if os.getuid() == 0:
        other = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(folder, "postgres", "postgres")
    port, data = free_port(), folder / "data"
    quiet: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **other}
    subprocess.run([programs / "initdb", "-D", data, "-A", "trust", "-U", "prefect", "--no-sync"], check=True, **quiet)
    command = [programs / "postgres", "-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1", "-F"]
    running = subprocess.Popen(command, **quiet)
    try:
        wait_for("PostgreSQL", lambda: socket.create_connection(("127.0.0.1", port), 1).close() or True)
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        running.terminate()
        running.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def prefect_server(folder: Path) -> Iterator[PrefectServer]:
    """Run a Prefect server whose home is `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    programs, no_postgres = find_postgres()
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(folder), "PREFECT_API_URL": url, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with contextlib.ExitStack() as stack:
        own = dict(environment)
        if programs:
            own["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = stack.enter_context(postgres(programs))
        log = stack.enter_context((folder / "server.log").open("w"))
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-ui"]
        running = subprocess.Popen(command, env=own, stdout=log, stderr=subprocess.STDOUT)
        server = PrefectServer(url, environment, no_postgres)
        try:
            wait_for("the Prefect server", lambda: server.ask("/health"))
            yield server
        finally:
            running.terminate()
            try:
                running.wait(60)
            except subprocess.TimeoutExpired:
                running.kill()
