"""Evaluates a checkpoint on task folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from trainer.checkpoint import load_checkpoint
from trainer.distributed import choose_device
from trainer.run import write_json
from trainer.tasks.zero_shot_classification import TaskResult, run_task


def evaluate(
    checkpoint: str | Path,
    tasks: Sequence[str | Path],
    *,
    output: str | Path | None = None,
    device: str | None = None,
    batch_size: int = 256,
) -> list[TaskResult]:
    """How the model of a checkpoint (or of a training's OUT) does on each task, in the tasks' order.

    Args:
        tasks: folders or fsspec URLs in the layout of `trainer.tasks.zero_shot_classification`.
        output: a JSON file to write the results to.
        device: "cpu", "cuda", ...; by default the GPU if there is one.

    Raises:
        ValueError: the checkpoint, a task or the device is missing or malformed.
    """
    chosen = choose_device(device)
    model, preprocess, tokenizer = load_checkpoint(checkpoint, chosen)
    results = [run_task(str(task), model, preprocess, tokenizer, chosen, batch_size) for task in tasks]
    if output:
        record = {
            "checkpoint": str(checkpoint),
            "results": [dataclasses.asdict(result) for result in results],
        }
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(output), record)
    return results
