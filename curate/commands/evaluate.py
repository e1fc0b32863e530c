"""`curate evaluate`: how a trained model does on evaluation tasks."""

from __future__ import annotations

import dataclasses
import json

import click

from curate.errors import RequestError


@click.command("evaluate")
@click.argument("checkpoint", type=click.Path())
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Also write the results, with every item.")
@click.option("--device", help="cpu, cuda, ...  [default: the GPU if there is one]")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, without the items.")
def command(checkpoint: str, tasks: tuple[str, ...], output: str | None, device: str | None, as_json: bool) -> None:
    """Evaluate CHECKPOINT, a checkpoint folder or the OUT of `curate train`, on each TASK folder."""
    from trainer.evaluate import evaluate

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
        click.echo(
            f"{result.task}: "
            f"{result.metric} {result.value:.1%} (95 % interval {result.low:.1%} to {result.high:.1%}), "
            + "".join(f"{name} {value:.1%}, " for name, value in result.metrics.items() if name != result.metric)
            + f"{result.items} items"
        )
        for reason, count in result.skipped.items():
            click.echo(f"  skipped {count}: {reason}")
