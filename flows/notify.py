"""What is told of a run: to a webhook when it failed or drifted, and to the metrics however it ended.

Neither ever fails a run, or shows the webhook's address.
"""

from __future__ import annotations

import logging
import os
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

    `text` alone says what happened: chat services show that field.
    """
    for chatty in ("httpx", "httpcore"):  # they log addresses, and this one is a secret
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        address = webhook()
        if address is None:
            return False
        answer = httpx.post(address, json={"event": event, "text": text, **facts}, timeout=TIMEOUT)
    except RequestError as wrong:
        log.warning("no notice of %s was sent: %s", event, wrong)
        return False
    except Exception as error:  # whatever it is: a notice is not worth a run, and its words may hold the address
        log.warning("no notice of %s was sent: %s", event, type(error).__name__)
        return False
    if not answer.is_success:
        log.warning("no notice of %s was taken: the webhook answered %d", event, answer.status_code)
    return answer.is_success


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
