"""curate metrics: what runs counted, printed or served to Prometheus."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import click

from curate.errors import RequestError, WorkError
from curate.metrics.ledger import FILE, FOLDER


@click.command()
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--serve", "port", type=click.IntRange(0, 65535), help="Serve them at this port until it is stopped.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to serve at.")
def command(folder: Path | None, port: int | None, host: str) -> None:
    """Show the metrics in FOLDER, as Prometheus reads them.  [default: the folder of CURATE_METRICS]"""
    named = str(folder or os.environ.get(FOLDER, "")).strip()
    if not named:
        raise RequestError(f"FOLDER: give the folder of the metrics, or set {FOLDER}")
    file = Path(named) / FILE
    if port is None:
        if not file.exists():
            raise RequestError(f"FOLDER: {named} holds no {FILE}; a run with {FOLDER}={named} writes it")
        click.echo(file.read_text(), nl=False)
        return
    serve(file, host, port)
    stop = threading.Event()  # a container's first process would not hear of its end without a handler
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()


def serve(file: Path, host: str, port: int) -> int:
    """Serve the file's metrics at `/metrics` from a thread, read anew each time; the port.

    Raises:
        WorkError: the port cannot be had.
    """
    from prometheus_client import start_http_server

    from curate.metrics.ledger import Shown

    try:
        server, _ = start_http_server(port, host, registry=Shown.of_file(file))
    except OSError as error:
        raise WorkError(f"--serve: {host}:{port}: {error.strerror or error}") from error
    found = int(server.server_port)
    click.echo(f"http://{host}:{found}/metrics", err=True)
    return found
