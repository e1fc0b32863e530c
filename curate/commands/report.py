"""curate report: write a dataset's report again."""

from __future__ import annotations

import click


@click.command()
@click.argument("out")
@click.option("--pool", help="Where the pool is now.  [default: as in OUT/manifest.json]")
@click.option("--cache", help="Folder or URL of its features.  [default: POOL/_features]")
def command(out: str, pool: str | None, cache: str | None) -> None:
    """Write OUT/report.html of a finished dataset again.

    Takes in OUT/evidence.json and OUT/defects.json where they exist. Without the pool or its features the
    report is written without what needs them.
    """
    from curate.report.finished import open_finished, pool_of
    from curate.report.page import REPORT, write_report

    folder, manifest = open_finished(out)
    write_report(folder, manifest, pool_of(manifest, pool, cache))
    click.echo(f"report: {out.rstrip('/')}/{REPORT}")
