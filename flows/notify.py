"""What is told of a run: to a webhook when it failed or drifted, and to the metrics however it ended.

Neither ever fails a run, or shows the webhook's address.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flows import Flow
from prefect.states import State

from curate import metrics
from curate.errors import RequestError

WEBHOOK = "CURATE_WEBHOOK"
"""The environment variable with the address. It is a secret, so it is no parameter of a flow: those are shown."""
TIMEOUT = 10.0
"""Seconds that one try may take."""
PAUSES = (1.0, 4.0)
"""Seconds before the second try and the third."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
LONGEST = 500
"""Characters of a notice's text."""
_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s]*@")
log = logging.getLogger("curate.notify")


def webhook() -> str | None:
    """The address to tell, or None if there is none.

    Raises:
        RequestError: it is no http(s) address; does not repeat it.
    """
    address = os.environ.get(WEBHOOK, "").strip()
    if not address:
        return None
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise RequestError(f"{WEBHOOK}: not an http or https address")
    return address


def notify(event: str, text: str, **facts: Any) -> bool:
    """POST `{"event", "text", …facts}` as JSON to the webhook; whether it was taken. Never raises.

    `text` alone says what happened, on one line: chat services show that field. What passes (no connection, a server
    that is busy or fails) is tried again twice.
    """
    for chatty in ("httpx", "httpcore"):  # they log addresses, and this one is a secret
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        address = webhook()
        if address is None:
            return False
        problem = _send(address, {"event": event, "text": shown(text), **_without_passwords(facts)})
    except RequestError as wrong:
        problem = f"was sent: {wrong}"
    except Exception as error:  # whatever it is: a notice is not worth a run, and its words may hold the address
        problem = f"was sent: {type(error).__name__}"
    if problem:
        log.warning("no notice of %s %s", event, problem)
    return problem is None


def shown(text: str) -> str:
    """Text that a chat service shows as it is: on one line, not long, without passwords, and without its markup.

    What a page or a file is called gets into messages; `<!channel>` in Slack's would call everybody.

    >>> shown("failed: <!channel> s3://me:secret@host/a\\nTraceback")
    'failed: ‹!channel› s3://***@host/a Traceback'
    """
    line = " ".join(_PASSWORD.sub("://***@", text).split()).replace("<", "‹").replace(">", "›")
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def _without_passwords(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_passwords(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_passwords(part) for part in value]
    return _PASSWORD.sub("://***@", value) if isinstance(value, str) else value


def _send(address: str, body: dict[str, Any]) -> str | None:
    """Why it was not taken in the end; None if it was."""
    problem = None
    for pause in (0.0, *PAUSES):
        time.sleep(pause)
        problem, passing = _try(address, body)
        if not passing:
            break
    return problem


def _try(address: str, body: dict[str, Any]) -> tuple[str | None, bool]:
    """Send it once: what went wrong, and whether it may pass. The whole takes `TIMEOUT` seconds at most."""
    found: list[tuple[str | None, bool]] = []

    def post() -> None:
        try:
            with httpx.stream("POST", address, json=body, timeout=TIMEOUT) as answer:  # what it says is not read
                status = answer.status_code
        except httpx.TransportError as error:
            found.append((f"was sent: {type(error).__name__}", True))
        except Exception as error:
            found.append((f"was sent: {type(error).__name__}", False))
        else:
            taken = answer.is_success
            found.append((None if taken else f"was taken: the webhook answered {status}", status in PASSING))

    # httpx limits each wait, so a server that says a byte a second could hold a run for ever.
    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return found[0] if found else (f"was taken within {TIMEOUT:g} seconds", False)


def tell_of_failure(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A flow's hook for failures and crashes. A flow that another one called is silent: its caller tells."""
    if flow_run.parent_task_run_id is not None:
        return
    notify(
        "failure",
        f"curate: {flow.name} {flow_run.name} {state.name}: {state.message or 'no message'}",
        flow=flow.name,
        run=flow_run.name,
        run_id=str(flow_run.id),
        state=state.name,
        message=state.message,
    )


def count_run(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A flow's hook for every end: counts the run, but not one that another flow called."""
    if flow_run.parent_task_run_id is not None or not metrics.enabled():
        return
    began = flow_run.start_time
    seconds = None if began is None else (datetime.now(UTC) - began).total_seconds()
    metrics.ran(flow.name, _deployment(flow_run), state.is_completed(), seconds)


def _deployment(flow_run: FlowRun) -> str:
    """The name of a run's deployment; empty where it has none, its id where the server does not say."""
    if flow_run.deployment_id is None:
        return ""
    try:
        with get_client(sync_client=True) as client:
            return str(client.read_deployment(flow_run.deployment_id).name)
    except Exception as error:  # a server that has just gone is no reason to lose the count
        log.warning("the deployment's name is not known: %s", type(error).__name__)
        return str(flow_run.deployment_id)


HOOKS: dict[str, Any] = {
    "on_completion": [count_run],
    "on_failure": [count_run, tell_of_failure],
    "on_crashed": [count_run, tell_of_failure],
}
"""What every flow of ours calls when it ends."""
