"""What is watched from run to run: drift of keep rates and scores, and the accuracy of what was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger

from curate import metrics
from curate.drift import Bounds, Move, before, compare, observe, read_history, read_lines, record, write_lines
from curate.pool import Pool
from curate.storage import Folder
from flows.notify import notify

ACCURACY = "accuracy.jsonl"
SHOWN = 50
"""Rows of the table of accuracies: the last runs."""


def watch_drift(
    history: Folder, manifest: Mapping[str, Any], out: Folder, pool: Pool, bounds: Bounds | None = None
) -> list[Move]:
    """Compare a finished dataset with the runs before it, say what moved, and put it into the history.

    An alarm is a warning in the run's log, an artifact, and a notice. A dataset that is in the history already was
    told of when it was made.
    """
    now, runs = observe(manifest, out, pool), read_history(history)
    earlier, known = before(now, runs)
    moves = compare(now, earlier, bounds or Bounds())
    said = f"against the runs before in {history.url}" if moves else f"no earlier run of this recipe in {history.url}"
    create_table_artifact([move.as_dict() for move in moves], key="drift", description=f"{out.url}: {said}")
    metrics.drift(manifest["name"], moves, new=not known)
    alarms = [move for move in moves if move.alarm]
    if alarms:
        _raise_alarm(manifest["name"], out, alarms, known)
    record(history, runs, now)
    return moves


def _raise_alarm(name: str, out: Folder, alarms: Sequence[Move], known: bool) -> None:
    lines = [str(move) for move in alarms]
    logger = get_run_logger()
    for line in lines:
        logger.warning("drift: %s", line)
    text = "\n".join(f"- {line}" for line in lines)
    create_markdown_artifact(f"# {name} drifted\n\n{text}\n\n{out.url}\n", key="drift-alarm")
    if not known:
        title = f"curate: {name} drifted: {lines[0]}" + (f" and {len(lines) - 1} more" if lines[1:] else "")
        notify("drift", title, recipe=name, out=out.url, moves=[move.as_dict() for move in alarms])


def watch_accuracy(history: Folder, out: str, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Put an ablation's accuracies into the history and show how each arm's went from run to run."""
    arms = {arm["name"]: {"value": arm["value"], "interval": arm["interval"]} for arm in result["arms"]}
    now = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "name": result["name"], "out": out, "arms": arms}
    runs = read_lines(history, ACCURACY)
    lines = [now if run.get("out") == out else run for run in runs]
    if now not in lines:
        lines.append(now)
    write_lines(history, ACCURACY, lines)
    same = [run for run in lines if run.get("name") == result["name"] and isinstance(run.get("arms"), dict)]
    rows = [_row(run) for run in same[-SHOWN:]]
    create_table_artifact(rows, key="accuracy-trend", description=f"{result['name']}: accuracy over runs")
    return rows


def _row(run: Mapping[str, Any]) -> dict[str, Any]:
    row = {"at": run.get("at"), "out": run.get("out")}
    for name, arm in run["arms"].items():
        low, high = arm.get("interval") or (None, None)
        row[name] = f"{arm['value']:.1%}" + ("" if low is None else f" [{low:.1%}, {high:.1%}]")
    return row
