"""curate deploy: flows on a schedule."""

from __future__ import annotations

import json
import os

import click


@click.command()
@click.argument("deployments", type=click.Path(dir_okay=False))
@click.option("--work-pool", help="Register them for the workers of this pool, and return.  [default: serve them]")
@click.option("--limit", type=click.IntRange(1), default=1, show_default=True, help="Runs at the same time, if served.")
@click.option("--check", is_flag=True, help="Only check the file; no server is needed.")
@click.option("--json", "as_json", is_flag=True, help="Print the deployments as JSON (with --check or --work-pool).")
def command(deployments: str, work_pool: str | None, limit: int, check: bool, as_json: bool) -> None:
    """Run the flows of DEPLOYMENTS, a YAML file, on their schedules, with the Prefect server at PREFECT_API_URL.

    Serves them until it is stopped. Started again after it was killed, it goes on with the runs that were cut off.
    """
    # Before Prefect is imported, which reads its settings then; the runs' own processes inherit them.
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "curate,flows,trainer")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    from curate import metrics
    from flows.deploy import register, serve_all
    from flows.deploy_file import load_deployments

    planned = load_deployments(deployments)
    metrics.check()
    if check or work_pool:
        names = [f"{one.flow}/{one.name}" for one in planned]
        if not check:
            names = register(planned, str(work_pool))
        click.echo(json.dumps(names) if as_json else "\n".join(names))
        return
    serve_all(planned, deployments, limit)
