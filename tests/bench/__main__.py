"""Run the benchmarks, print their table and save it as JSON: `python -m tests.bench [NAME...] [--out FILE]`."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import platform
import sys
import tempfile
import traceback
from importlib.metadata import version
from pathlib import Path

import click

import tests.bench
from tests.bench.figure import Figure

PREFIX = "bench_"
NAMES = sorted(m.name.removeprefix(PREFIX) for m in pkgutil.iter_modules(tests.bench.__path__) if PREFIX in m.name)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--data", default="../shared/data", show_default=True, help="The folder of real photos.")
@click.option("--out", default="build/bench.json", show_default=True, help="The table as JSON.")
def main(names: tuple[str, ...], data: str, out: str) -> None:
    """Run the named benchmarks, or all; exit 1 if one fails or misses its bound."""
    os.environ.setdefault("CURATE_BENCH_DATA", str(Path(data).absolute()))
    found: list[tuple[str, Figure]] = []
    failed: dict[str, str] = {}
    for name in names or NAMES:
        click.echo(f"{name} ...", err=True)
        with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as work:
            try:
                figures = importlib.import_module(f"tests.bench.{PREFIX}{name}").run(Path(work))
            except Exception as error:  # one that cannot run must not hide the others
                traceback.print_exc()
                failed[name] = f"{type(error).__name__}: {error}"
                continue
        for figure in figures:
            found.append((name, figure))
            click.echo(line(figure), err=True)
    click.echo("\n".join(["| measure | figure | asked | measured |", "| --- | --- | --- | --- |"]))
    click.echo("\n".join(line(figure) for _, figure in found))
    machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version(), "curate": version("curate")}
    rows = [{"benchmark": name} | figure.as_dict() for name, figure in found]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(json.dumps({"machine": machine, "figures": rows, "failed": failed}, indent=2))
    missed = [figure.measure for _, figure in found if figure.reached is False]
    for name, why in failed.items():
        click.echo(f"{name} could not run: {why}")
    if missed:
        click.echo(f"missed: {'; '.join(missed)}")
    sys.exit(1 if missed or failed else 0)


def line(figure: Figure) -> str:
    """A figure as a row of a Markdown table."""
    if figure.at_least is not None:
        asked = f"≥ {figure.at_least:g}"
    else:
        asked = f"≤ {figure.at_most:g}" if figure.at_most is not None else ""
    return f"| {figure.measure} | {figure.value:.3g} {figure.unit} | {asked} | {figure.detail} |"


if __name__ == "__main__":
    main()
