"""`curate download`: fetch the images of pairs into a pool."""

from __future__ import annotations

import json
from dataclasses import asdict

import click


@click.command("download")
@click.argument("pairs")
@click.argument("pool")
@click.option("--allow-private", is_flag=True, help="Also fetch from this machine and private networks.")
@click.option("--retries", type=click.IntRange(0, 10), default=2, show_default=True, help="Further rounds.")
@click.option("--processes", type=click.IntRange(1, 256), help="Default: one per core.")
@click.option("--threads", type=click.IntRange(1, 1024), default=32, show_default=True, help="Per process.")
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=10.0, show_default=True, help="Seconds.")
@click.option("--samples-per-shard", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--url-column", default="url", show_default=True)
@click.option("--caption-column", default="caption", show_default=True)
@click.option("--column", "columns", multiple=True, help="A further column that goes along into POOL; may be repeated.")
@click.option("--compare-with", multiple=True, metavar="POOL", help="Warn if attrition differs from an earlier pool's.")
@click.option("--robots", is_flag=True, help="Honour the robots.txt of the images' hosts, too.")
@click.option("--verify", is_flag=True, help="Read the finished shards again, and redo those that changed.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    pairs: str,
    pool: str,
    allow_private: bool,
    retries: int,
    processes: int | None,
    threads: int,
    timeout: float,
    samples_per_shard: int,
    url_column: str,
    caption_column: str,
    columns: tuple[str, ...],
    compare_with: tuple[str, ...],
    robots: bool,
    verify: bool,
    as_json: bool,
) -> None:
    """Fetch the images of PAIRS, a Parquet file with the columns url and caption, into the folder POOL.

    Both may be URLs of a store such as s3://. What fails and may succeed later is tried again; a run that was cut off
    resumes, and shards that were damaged are made again.
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
        columns=columns,
        compare_with=compare_with,
        robots=robots,
        verify=verify,
    )
    report = download(pairs, pool, limits)
    if as_json:
        click.echo(json.dumps(asdict(report)))
        return
    speed = f"{report.images_per_second:.1f} images/s, {report.bytes_per_second / 1e6:.1f} MB/s"
    click.echo(
        f"{report.downloaded} of {report.asked} images ({100 * report.success_rate:.1f} %) downloaded "
        f"in {report.shards} shards at {speed} -> {pool}"
    )
    failures = ", ".join(f"{reason} {count}" for reason, count in report.failed.items())
    if failures:
        click.echo(f"failed: {failures}")
    if report.held_off:
        click.echo(f"not tried again, because their hosts asked to wait: {report.held_off}")
