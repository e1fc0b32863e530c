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
@click.option("--texts", help="Where captions are taken from, separated by commas; default: all but title.")
@click.option("--distinct", type=click.Choice(["url", "uid"]), help="Keep the first row of each, over all pages.")
@click.option("--engine", type=click.Choice(["local", "spark"]), default="local", show_default=True)
@click.option("--workers", type=click.IntRange(1, 4096), default=1, show_default=True, help="Archives at a time.")
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
    texts: str | None,
    distinct: str | None,
    engine: str,
    workers: int,
    as_json: bool,
) -> None:
    """Find image-text pairs on web pages.

    SOURCE is a text file with one page address a line, a page's address, or a WARC or WAT file, here, at an
    http(s) address or in a store such as s3://.
    """
    from curate.acquire.crawl import crawl
    from curate.acquire.fetch import USER_AGENT, FetchLimits
    from curate.acquire.html import TEXTS

    limits = FetchLimits(
        allow_private=allow_private,
        user_agent=user_agent or USER_AGENT,
        timeout=timeout,
        retries=retries,
        pause=pause,
        threads=threads,
    )
    chosen = [text.strip() for text in texts.split(",")] if texts else TEXTS
    report = crawl(sources, out, limits, texts=chosen, distinct=distinct, engine=engine, workers=workers)
    if as_json:
        click.echo(json.dumps(asdict(report)))
        return
    click.echo(f"{report.pairs} pairs from {report.pages_read} of {report.pages} pages -> {out}")
    click.echo(f"images: {report.images}, without text: {report.without_text}, without address: {report.without_url}")
    if report.parts_before:
        click.echo(f"parts finished by an earlier run: {report.parts_before}")
    for reason, count in report.failures.items():
        click.echo(f"pages not read, {reason}: {count}")
    if report.failures.get("no_archive"):
        click.echo("run the same command again to read only the archives that could not be read")
