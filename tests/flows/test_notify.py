"""Notices: they say what happened, never fail a run, and never show where they go."""

from __future__ import annotations

import http.server
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Failed

import flows.notify
from curate.errors import RequestError
from curate.metrics.ledger import FILE, FOLDER
from flows.curation import curation
from flows.deploy_file import FlowName, flow_of
from flows.notify import LONGEST, WEBHOOK, count_run, notify, shown, tell_of_failure, webhook

SECRET = "T0K3N-of-the-channel"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """A webhook on loopback: what it was told. It answers 400 to what has `fail` in it, and is `busy` twice."""
    told: list[dict[str, Any]] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            told.append(body)
            busy = "busy" in body["text"] and len(told) < 3
            self.send_response(400 if "fail" in body["text"] else 503 if busy else 200)
            while "drip" in body["text"]:
                self.wfile.write(b"X-Still: here\r\n")
                time.sleep(0.05)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(WEBHOOK, f"http://127.0.0.1:{server.server_port}/{SECRET}")
    monkeypatch.setattr(flows.notify, "PAUSES", (0.0, 0.0))
    yield told
    server.shutdown()


def test_a_failed_run_is_told_with_its_name_and_message(hook: list[dict[str, Any]]) -> None:
    run = FlowRun(id=uuid4(), flow_id=uuid4(), name="brave-otter")
    tell_of_failure(curation, run, Failed(message="the disk is full"))
    (said,) = hook
    assert said["text"] == "curate: curation brave-otter Failed: the disk is full"
    assert said["event"] == "failure" and said["run_id"] == str(run.id)


def test_a_flow_that_another_one_called_leaves_the_telling_to_it(hook: list[dict[str, Any]]) -> None:
    run = FlowRun(id=uuid4(), flow_id=uuid4(), name="inner", parent_task_run_id=uuid4())
    tell_of_failure(curation, run, Failed(message="the disk is full"))
    assert hook == []


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/", "https://no-such-host.invalid/", "ftp://host/", "http://[/"]
)
def test_a_webhook_that_cannot_be_told_is_a_warning_without_its_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(flows.notify, "PAUSES", (0.0,))
    monkeypatch.setenv(WEBHOOK, address + SECRET)
    assert notify("drift", "something moved") is False
    assert "no notice of drift was sent" in caplog.text and SECRET not in caplog.text


def test_an_answer_of_failure_is_a_warning_too(hook: list[dict[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert notify("drift", "good", number=1) and not notify("drift", "this will fail")
    assert hook[0] == {"event": "drift", "text": "good", "number": 1}
    assert "answered 400" in caplog.text and len(hook) == 2 and SECRET not in caplog.text


def test_a_busy_webhook_is_told_again(hook: list[dict[str, Any]]) -> None:
    assert notify("drift", "it is busy") and len(hook) == 3


def test_a_webhook_that_drips_holds_no_run(
    hook: list[dict[str, Any]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.notify, "TIMEOUT", 0.5)
    began = time.monotonic()
    assert not notify("drift", "this will drip") and time.monotonic() - began < 10
    assert "was taken within 0.5 seconds" in caplog.text


def test_what_strangers_wrote_calls_nobody_and_passwords_are_left_out(hook: list[dict[str, Any]]) -> None:
    message = "POOL: s3://key:s3cr3t@store/pool:\n <!channel> <https://evil.example|click>"
    tell_of_failure(curation, FlowRun(id=uuid4(), flow_id=uuid4(), name="run"), Failed(message=message))
    assert hook[0]["text"] == (
        "curate: curation run Failed: POOL: s3://***@store/pool: ‹!channel› ‹https://evil.example|click›"
    )
    assert "s3cr3t" not in json.dumps(hook) and len(shown("x" * 9999)) == LONGEST


def test_without_an_address_nothing_is_sent_and_a_wrong_one_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WEBHOOK, raising=False)
    assert webhook() is None and notify("drift", "x") is False
    monkeypatch.setenv(WEBHOOK, f"file:///{SECRET}")
    with pytest.raises(RequestError) as wrong:
        webhook()
    assert SECRET not in str(wrong.value)


def test_every_flow_tells_of_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in get_args(FlowName):
        flow = flow_of(name)
        assert tell_of_failure in flow.on_failure_hooks and tell_of_failure in flow.on_crashed_hooks, name
        assert all(count_run in hooks for hooks in (flow.on_completion_hooks, flow.on_failure_hooks)), name
    monkeypatch.setenv(FOLDER, str(tmp_path))
    count_run(curation, FlowRun(id=uuid4(), flow_id=uuid4(), name="run"), Failed(message="x"))
    count_run(curation, FlowRun(id=uuid4(), flow_id=uuid4(), name="run", parent_task_run_id=uuid4()), Failed())
    assert 'curate_runs_total{deployment="",flow="curation",outcome="failure"} 1.0' in (tmp_path / FILE).read_text()
