"""Deployments on a Prefect server: served by this process, or registered for the workers of a work pool."""

from __future__ import annotations

import asyncio
import fcntl
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import get_client, serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.exceptions import PrefectHTTPStatusError
from prefect.runner.storage import LocalStorage
from prefect.schedules import Cron, Interval
from prefect.settings import PREFECT_API_URL

from curate.errors import RequestError, WorkError
from flows.deploy_file import Planned, flow_of
from flows.notify import webhook

log = logging.getLogger("curate.deploy")


def check_server() -> str:
    """The server's address, if there is one and it answers.

    Raises:
        RequestError: none is set; WorkError: it does not answer.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise RequestError(
            "PREFECT_API_URL: no Prefect server is set; `prefect server start` starts one, then "
            "PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    try:
        asyncio.run(_ask("GET", "/health"))
    except Exception as error:
        raise WorkError(f"the Prefect server at {url} does not answer: {type(error).__name__}") from error
    return str(url)


def runner_deployment(one: Planned, pool: str | None = None) -> RunnerDeployment:
    """A deployment as Prefect wants it; the flow is found by its module, so it runs from any folder."""
    schedule = None
    if one.cron is not None:
        schedule = Cron(one.cron, timezone=one.timezone)
    elif one.interval is not None:
        schedule = Interval(timedelta(seconds=one.interval), timezone=one.timezone)
    limit = ConcurrencyLimitConfig(limit=one.concurrency, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    return RunnerDeployment.from_flow(
        flow_of(one.flow),
        one.name,
        description=one.description or None,
        parameters=one.parameters,
        schedule=schedule,
        tags=["curate", *one.tags],
        paused=one.paused,
        concurrency_limit=limit if pool else None,  # one process that serves counts its runs itself
        work_pool_name=pool,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


def register(planned: Sequence[Planned], pool: str) -> list[str]:
    """Register deployments for the workers of a work pool; their names as `flow/name`.

    Workers run them in the folder that this process is in, by its path, so that paths mean the same there.

    Raises:
        RequestError: there is no such pool; names those that there are.
    """
    check_server()
    webhook()
    found = asyncio.run(_ask("POST", "/work_pools/filter", {}))
    names = sorted(one["name"] for one in found)
    if pool not in names:
        there = ", ".join(names) or "none"
        raise RequestError(
            f"--work-pool: no pool {pool!r} (there are: {there}); make it with `prefect work-pool create`"
        )
    deployments = [runner_deployment(one, pool) for one in planned]
    for deployment in deployments:
        deployment.storage = LocalStorage(str(Path.cwd()))
        deployment.apply()
    return [deployment.full_name for deployment in deployments]


def serve_all(planned: Sequence[Planned], file: str | Path, limit: int = 1) -> None:
    """Serve deployments until this process is stopped; at most `limit` runs at a time.

    Runs that an earlier process left behind when it was killed are started again first, with the same parameters
    and dates: they go on where they were.

    Raises:
        RequestError: another process on this machine serves the file already.
    """
    check_server()
    webhook()
    with Path(file).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it ends with this process, however that ends
        except OSError as error:
            raise RequestError(f"DEPLOYMENTS: {file} is served by another process already") from error
        deployments = [runner_deployment(one) for one in planned]
        for name in asyncio.run(start_again([deployment.full_name for deployment in deployments])):
            log.warning("run %s was cut off and is started again", name)
        serve(*deployments, limit=limit, print_starting_message=False)


async def start_again(names: Sequence[str]) -> list[str]:
    """Schedule the runs of some deployments (`flow/name`) that seem to run, for now; the names of the runs.

    To be called while nobody else serves them, so that none does run.
    """
    ids = []
    for name in names:
        try:
            ids.append((await _ask("GET", f"/deployments/name/{name}"))["id"])
        except PrefectHTTPStatusError as error:
            if error.response.status_code != 404:
                raise
    if not ids:
        return []
    asked = {
        "deployments": {"id": {"any_": ids}},
        "flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}},
    }
    runs = await _ask("POST", "/flow_runs/filter", asked)
    for run in runs:
        # At the time that it was for, so that it comes before what has waited since.
        at = run["expected_start_time"] or datetime.now(UTC).isoformat()
        state = {"type": "SCHEDULED", "name": "Resuming", "message": "The process that ran it was cut off.",
                 "state_details": {"scheduled_time": at}}  # fmt: skip
        await _ask("POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
    return [run["name"] for run in runs]


async def _ask(method: str, path: str, body: Any = None) -> Any:
    """Ask the server's API and give its answer as plain data."""
    async with get_client() as client:
        answer = await client.request(method, path, **({} if body is None else {"json": body}))  # type: ignore[arg-type]
        return answer.json()
