"""Notices: they say what happened, never fail a run, and never show where they go."""

from __future__ import annotations

import http.server
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Failed

from curate.errors import RequestError
from flows.curation import curation
from flows.notify import WEBHOOK, notify, tell_of_failure, webhook

SECRET = "T0K3N-of-the-channel"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """A webhook on loopback: what it was told. It answers 500 to what has `fail` in it."""
    told: list[dict[str, Any]] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            told.append(body)
            self.send_response(500 if "fail" in body["text"] else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(WEBHOOK, f"http://127.0.0.1:{server.server_port}/{SECRET}")
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
    monkeypatch.setenv(WEBHOOK, address + SECRET)
    assert notify("drift", "something moved") is False
    assert "no notice of drift was sent" in caplog.text and SECRET not in caplog.text


def test_an_answer_of_failure_is_a_warning_too(hook: list[dict[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert notify("drift", "good", number=1) and not notify("drift", "this will fail")
    assert hook[0] == {"event": "drift", "text": "good", "number": 1}
    assert "answered 500" in caplog.text and SECRET not in caplog.text


def test_without_an_address_nothing_is_sent_and_a_wrong_one_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WEBHOOK, raising=False)
    assert webhook() is None and notify("drift", "x") is False
    monkeypatch.setenv(WEBHOOK, f"file:///{SECRET}")
    with pytest.raises(RequestError) as wrong:
        webhook()
    assert SECRET not in str(wrong.value)
