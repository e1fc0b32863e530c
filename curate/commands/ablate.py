"""curate ablate: which filter earns its place, shown by training at equal compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from curate.commands.run import under_prefect
from curate.engines import NAMES
from curate.errors import RequestError


@click.command()
@click.argument("experiment", type=click.Path(dir_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--engine", default="local", show_default=True, help=f"Where features are measured: {' or '.join(NAMES)}."
)
@click.option("--workers", type=click.IntRange(1), help="Processes that measure. Default: one per core.")
@click.option("--devices", help="Train on these at the same time: cuda:0,cuda:1.  [default: one, the GPU if any]")
@click.option("--history", help="Folder or URL of earlier runs: show how accuracies went, and add this run.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    experiment: str,
    out: Path,
    engine: str,
    workers: int | None,
    devices: str | None,
    history: str | None,
    as_json: bool,
) -> None:
    """Run the arms of EXPERIMENT, a YAML file, with every seed, and write what they show to OUT.

    Every arm is trained at equal compute and first cleared of the images it will be tested on. Run again, it goes on
    where it was stopped, and trains nothing that is trained already.
    """
    from flows.arms import check
    from flows.experiment import load_experiment

    asked = load_experiment(experiment)
    check(asked)  # a wrong request should not have to wait for a server
    chosen = tuple(device.strip() for device in devices.split(",")) if devices else ()
    if not all(chosen):
        raise RequestError("--devices: name each between commas, like cuda:0,cuda:1")
    result = under_prefect(
        "flows.ablation:ablation", experiment=experiment, out=str(out), engine=engine, workers=workers, devices=chosen,
        history=history,
    )  # fmt: skip
    click.echo(json.dumps(result, indent=2) if as_json else summary(result, out, len(asked.seed_numbers)))


def summary(result: dict[str, Any], out: Path, seeds: int) -> str:
    """The arms as a table, then the verdicts."""
    width = max(len(arm["name"]) for arm in result["arms"])
    metric = " + ".join(f"{task} {name}" for task, name in result["tasks"].items())
    lines = ["", f"mean of {metric}; {seeds} seeds", ""]
    lines.append(f"{'arm':<{width}}  {'mean':>7}  {'95 % interval':>16}  {'samples':>9}  {'seen':>11}  {'repeats':>8}")
    for arm in result["arms"]:
        low, high = arm["interval"] or (None, None)
        span = f"{low:.1%} to {high:.1%}" if low is not None else "one seed"
        lines.append(
            f"{arm['name']:<{width}}  {arm['value']:>7.1%}  {span:>16}  {arm['samples']:>9,}  "
            f"{arm['samples_seen']:>11,}  {arm['repeats']:>7.1f}x"
        )
    lines += ["", *result["verdicts"], *(one["words"] for one in result["scaling"]), ""]
    lines += [*(f"note: {note}" for note in result["notes"]), ""]
    lines.append(
        f"trained {result['trained']}, from earlier runs {result['from_earlier_runs']}; "
        f"report: {out / 'report.html'}  ({result['seconds']:.0f} s)"
    )
    return "\n".join(lines)
