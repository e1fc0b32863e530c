"""`curate train`: train the reference model on a folder of shards."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import yaml

from curate import metrics
from curate.errors import RequestError, WorkError


@click.command("train")
@click.argument("shards")
@click.argument("out", type=click.Path(file_okay=False))
@click.option("--scale", default="tiny", show_default=True, help="tiny, small, medium or large.")
@click.option("--family", default="clip", show_default=True, help="The kind of model: a file of trainer/families.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Set an option of the family.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--samples-seen", type=click.IntRange(min=1), help="Image-text pairs to train on, repeats included.")
@click.option(
    "--captions",
    default="first",
    show_default=True,
    type=click.Choice(["first", "draw"]),
    help="draw: where KEY.json lists several `captions`, one of them in each epoch, by their weights.",
)
@click.option("--device", help="cpu, cuda, ...  [default: the GPU if there is one]")
@click.option("--restart", is_flag=True, help="Start over instead of resuming.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    shards: str,
    out: str,
    scale: str,
    family: str,
    options: tuple[str, ...],
    seed: int,
    samples_seen: int | None,
    captions: Any,
    device: str | None,
    restart: bool,
    as_json: bool,
) -> None:
    """Train the reference model on SHARDS, a folder or URL of WebDataset shards, and write it to OUT.

    Run again, the command resumes what was interrupted; a finished OUT is kept as it is.
    """
    from trainer.run import read_result
    from trainer.scales import get_scale
    from trainer.train import train

    before = read_result(Path(out))
    try:
        asked = {"name": family} | dict(map(_option, options))
        result = train(
            shards, out, scale=dataclasses.replace(get_scale(scale), captions=captions), family=asked, seed=seed,
            samples_seen=samples_seen, device=device, resume=not restart,
        )  # fmt: skip
    except ValueError as wrong:
        raise RequestError(str(wrong)) from wrong
    except FloatingPointError as failed:
        raise WorkError(str(failed)) from failed
    if result != before:
        metrics.trained(result.samples_seen, result.seconds, result.samples_per_second, result.loss, result.device)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result), indent=2))
        return
    click.echo(
        f"{result.samples_seen} samples seen (each of {result.unique_samples} {result.repeats:.2f} times), "
        f"loss {result.loss:.3f}, {result.seconds:.0f} s, {result.samples_per_second:.0f} samples/s, "
        f"{result.data_wait:.1%} waiting for data"
    )
    for reason, count in result.skipped.items():
        click.echo(f"skipped {count}: {reason}")
    click.echo(f"checkpoint: {result.checkpoint}")


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise RequestError(f"--option: {text!r} is not NAME=VALUE")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as wrong:
        raise RequestError(f"--option {name}: {value!r} is no YAML value") from wrong
