"""`curate evaluate`: how a trained model does on evaluation tasks."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from curate.errors import RequestError

if TYPE_CHECKING:
    from trainer.tasks.contract import TaskResult


@click.command("evaluate")
@click.argument("checkpoint", type=click.Path())
@click.argument("tasks", nargs=-1, metavar="TASK...")
@click.option("--tasks", "first", multiple=True, metavar="TASK...", help="The same as naming them after CHECKPOINT.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Also write the results, with every item.")
@click.option("--device", help="cpu, cuda, ...  [default: the GPU if there is one]")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, without the items.")
def command(
    checkpoint: str,
    tasks: tuple[str, ...],
    first: tuple[str, ...],
    output: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Evaluate CHECKPOINT, a checkpoint folder or the OUT of `curate train`, on each TASK folder.

    What a folder must hold is in docs/evaluation.md.
    """
    from trainer.evaluate import evaluate

    if not (tasks := (*first, *tasks)):
        raise click.UsageError("Missing argument 'TASK...'.")
    try:
        results = evaluate(checkpoint, tasks, output=output, device=device)
    except ValueError as wrong:
        raise RequestError(str(wrong)) from wrong
    if as_json:
        summaries = [dataclasses.asdict(result) for result in results]
        for summary in summaries:
            del summary["keys"], summary["scores"]
        click.echo(json.dumps(summaries, indent=2))
        return
    for result in results:
        rest = [name for name in result.metrics if name != result.metric]
        click.echo(
            f"{result.task}: "
            f"{result.metric} {_shown(result, result.metric, result.value)} (95 % interval "
            f"{_shown(result, result.metric, result.low)} to {_shown(result, result.metric, result.high)}), "
            + "".join(f"{name} {_shown(result, name, result.metrics[name])}, " for name in rest)
            + f"{result.items} items"
        )
        for reason, count in result.skipped.items():
            click.echo(f"  skipped {count}: {reason}")


def _shown(result: TaskResult, metric: str, value: float) -> str:
    """A share as a percentage, any other number and a count as they are."""
    if metric not in result.numbers:
        return f"{value:.1%}"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
