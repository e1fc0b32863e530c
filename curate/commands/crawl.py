"""`curate crawl`: find image-text pairs on web pages or in WARC files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click


@click.command("crawl")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The Parquet file to write.")
@click.option("--allow-private", is_flag=True, help="Also fetch from this machine and private networks.")
@click.option("--threads", type=click.IntRange(1, 256), default=16, show_default=True, help="Pages at a time.")
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=15.0, show_default=True, help="Seconds.")
@click.option("--retries", type=click.IntRange(0, 10), default=2, show_default=True, help="After the first try.")
@click.option("--pause", type=click.FloatRange(0, 60), default=0.0, help="Seconds between requests to a host.")
@click.option("--user-agent", help="How the crawler names itself to sites and in robots.txt.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    sources: tuple[str, ...],
    out: Path,
    allow_private: bool,
    threads: int,
    timeout: float,
    retries: int,
    pause: float,
    user_agent: str | None,
    as_json: bool,
) -> None:
    """Find image-text pairs on web pages.

    SOURCE is a text file with one page address a line, a page's address, or a .warc or .warc.gz file.
    """
    from curate.acquire.crawl import crawl
    from curate.acquire.fetch import USER_AGENT, FetchLimits

    limits = FetchLimits(
        allow_private=allow_private,
        user_agent=user_agent or USER_AGENT,
        timeout=timeout,
        retries=retries,
        pause=pause,
        threads=threads,
    )
    report = crawl(sources, out, limits)
    if as_json:
        click.echo(json.dumps(asdict(report)))
        return
    click.echo(f"{report.pairs} pairs from {report.pages_read} of {report.pages} pages -> {out}")
    click.echo(f"images: {report.images}, without text: {report.without_text}, without address: {report.without_url}")
    for reason, count in report.failures.items():
        click.echo(f"pages not read, {reason}: {count}")
