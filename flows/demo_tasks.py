"""Writes the demo's evaluation tasks, one folder each."""

from __future__ import annotations

from pathlib import Path

from curate.demo.tasks import demo_tasks
from trainer.tasks.write import write_task


def write_tasks(
    folder: Path, items: int = 300, *, seed: int = 0, site_seed: int = 0, site_samples: int = 3000
) -> list[Path]:
    """Write a task of every kind with `items` items each into sub-folders; the parameters are those of `demo_tasks`."""
    written = []
    for task in demo_tasks(items, seed=seed, site_seed=site_seed, site_samples=site_samples):
        for part, found in task.parts.items():
            write_task(folder / task.name, task.settings, found, part=part)
        written.append(folder / task.name)
    return written
