"""`curate download`: fetch the images of pairs into a pool."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click


@click.command("download")
@click.argument("pairs", type=click.Path(path_type=Path))
@click.argument("pool", type=click.Path(path_type=Path))
@click.option("--allow-private", is_flag=True, help="Also fetch from this machine and private networks.")
@click.option("--retries", type=click.IntRange(0, 10), default=2, show_default=True, help="Further rounds.")
@click.option("--processes", type=click.IntRange(1, 256), help="Default: one per core.")
@click.option("--threads", type=click.IntRange(1, 1024), default=32, show_default=True, help="Per process.")
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=10.0, show_default=True, help="Seconds.")
@click.option("--samples-per-shard", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--url-column", default="url", show_default=True)
@click.option("--caption-column", default="caption", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    pairs: Path,
    pool: Path,
    allow_private: bool,
    retries: int,
    processes: int | None,
    threads: int,
    timeout: float,
    samples_per_shard: int,
    url_column: str,
    caption_column: str,
    as_json: bool,
) -> None:
    """Fetch the images of PAIRS, a Parquet file with the columns url and caption, into the folder POOL.

    What fails and may succeed later is tried again; a run that was cut off resumes.
    """
    from curate.acquire.download import DownloadLimits, download

    limits = DownloadLimits(
        allow_private=allow_private,
        retries=retries,
        processes=processes,
        threads=threads,
        timeout=timeout,
        samples_per_shard=samples_per_shard,
        url_column=url_column,
        caption_column=caption_column,
    )
    report = download(pairs, pool, limits)
    if as_json:
        click.echo(json.dumps(asdict(report)))
        return
    click.echo(f"{report.downloaded} of {report.asked} images downloaded in {report.shards} shards -> {pool}")
    for reason, count in report.failed.items():
        click.echo(f"failed, {reason}: {count}")
