"""Evaluates a checkpoint on task folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from trainer.checkpoint import load_checkpoint
from trainer.run import write_json
from trainer.tasks.contract import TaskResult, run_task


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
        tasks: folders or fsspec URLs as `trainer.tasks.contract` says.
        output: a JSON file to write the results to.
        device: "cpu", "cuda", ...; by default the GPU if there is one.

    Raises:
        ValueError: the checkpoint, a task or the device is missing or malformed, or the
            model's family cannot do a task.
    """
    model = load_checkpoint(checkpoint, device)
    results = [run_task(str(task), model, batch_size) for task in tasks]
    if output:
        record = {
            "checkpoint": str(checkpoint),
            "results": [dataclasses.asdict(result) for result in results],
        }
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(output), record)
    return results
