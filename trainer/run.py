"""The files of a training's OUT: `request.json` is asked, `metrics.jsonl` and `train.json` come out."""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainer.data import DataReport
from trainer.family import DEFAULT, get_family
from trainer.progress import Progress
from trainer.scales import Scale


@dataclass(frozen=True)
class TrainResult:
    """What a finished training was and did; the same as `OUT/train.json`."""

    out: str  # the folder that holds `checkpoint/`, `metrics.jsonl` and `train.json`
    family: dict[str, Any]  # its name and options
    scale: dict[str, Any]
    seed: int
    data: str  # fingerprint of the shards
    steps: int
    samples_seen: int
    unique_samples: int
    repeats: float  # samples seen / unique samples
    skipped: dict[str, int]  # samples left out, by reason
    keys: str  # digest of the keys of the unique samples, whatever their order
    loss: float  # mean over the last tenth of the steps
    seconds: float  # wall time of reading, training and writing, over all resumed parts
    samples_per_second: float  # while training
    data_wait: float  # share of the time while training that was spent waiting for a batch, 0..1
    device: str
    precision: str  # fp32 where the device has no bf16
    versions: dict[str, str]
    flops_per_sample: float | None = None  # forward and backward, less what is computed again to save memory
    mfu: float | None = None  # share of the devices' peak that this reached, 0..1; None where the peak is not known

    @property
    def checkpoint(self) -> Path:
        """The folder that open_clip loads."""
        return Path(self.out) / "checkpoint"


@dataclass
class Totals:
    """What a training has done and spent so far, over all its resumed parts."""

    step: int = 0
    seconds: float = 0.0  # wall time, from reading the first shard on
    training_seconds: float = 0.0
    waiting_seconds: float = 0.0  # of the training seconds, spent waiting for a batch
    last_tenth_loss: float = 0.0  # summed over the last tenth of the steps


def check_request(folder: Path, request: dict[str, Any]) -> None:
    """Makes sure that OUT is empty or holds this very request.

    Raises:
        ValueError: it holds another one; the message names what differs.
    """
    path = folder / "request.json"
    if not path.is_file():
        return
    asked, held = _flatten(json.loads(json.dumps(request))), _flatten(_completed(json.loads(path.read_text())))
    differing = sorted(k for k in asked.keys() | held.keys() if asked.get(k) != held.get(k))
    if differing:
        changes = ", ".join(f"{k} ({_short(held.get(k))} there, {_short(asked.get(k))} now)" for k in differing)
        raise ValueError(f"out: {folder} holds another training: {changes}; name another folder or remove it")


def claim(folder: Path, request: dict[str, Any], resume: bool) -> None:
    """Writes the request into OUT; without `resume`, first removes what an earlier training left there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        for name in ("train.json", "request.json", "metrics.jsonl", "state.pt"):
            (folder / name).unlink(missing_ok=True)
    write_json(folder / "request.json", request)


def read_result(folder: Path) -> TrainResult | None:
    """The result of a finished training, None if OUT holds none."""
    path = folder / "train.json"
    if not path.is_file() or not (folder / "checkpoint").is_dir():
        return None
    return TrainResult(**{**json.loads(path.read_text()), "out": str(folder)})


def write_result(result: TrainResult) -> None:
    """Marks the training as finished; its saved state is no longer needed."""
    write_json(Path(result.out) / "train.json", dataclasses.asdict(result))
    (Path(result.out) / "state.pt").unlink(missing_ok=True)


def make_result(
    folder: Path, request: dict[str, Any], scale: Scale, totals: Totals, report: DataReport, how: dict[str, Any]
) -> TrainResult:
    """Sums up a training that has made all its steps."""
    samples_seen = scale.steps * scale.batch_size
    return TrainResult(
        out=str(folder),
        **request,
        steps=scale.steps,
        samples_seen=samples_seen,
        unique_samples=report.unique,
        repeats=round(samples_seen / max(1, report.unique), 4),
        skipped=dict(sorted(report.skipped.items())),
        keys=report.digest,
        loss=totals.last_tenth_loss / (scale.steps - last_tenth(scale.steps)),
        seconds=round(totals.seconds, 2),
        samples_per_second=round(samples_seen / totals.training_seconds, 1),
        data_wait=round(totals.waiting_seconds / totals.training_seconds, 4),
        **how,
        versions={"python": platform.python_version()} | {p: version(p) for p in ("torch", "open_clip_torch")},
    )


class Metrics:
    """Appends a line to `metrics.jsonl` every `log_steps` steps, less the lines a resumed training redoes."""

    def __init__(self, path: Path, totals: Totals, scale: Scale, progress: Progress):
        self.path, self.totals, self.scale, self.progress = path, totals, scale, progress
        self.before = dataclasses.replace(totals)
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        path.write_text("".join(line for line in lines if json.loads(line)["step"] <= totals.step))

    def note(self, loss: float, lr: float, mfu: Callable[[float], float | None], **more: float) -> None:
        """Takes what the step just made has given; `mfu` is of samples per second; `more` is recorded as it is."""
        totals, before, scale = self.totals, self.before, self.scale
        if totals.step > last_tenth(scale.steps):
            totals.last_tenth_loss += loss
        if totals.step % scale.log_steps and totals.step != scale.steps:
            return
        seconds = totals.training_seconds - before.training_seconds
        rate = (totals.step - before.step) * scale.batch_size / seconds
        record = {
            "step": totals.step,
            "samples_seen": totals.step * scale.batch_size,
            "loss": loss,
            "lr": lr,
            "samples_per_second": round(rate, 1),
            "mfu": mfu(rate),
            "data_wait": round((totals.waiting_seconds - before.waiting_seconds) / seconds, 4),
            **more,
            "seconds": round(totals.training_seconds, 2),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        self.before = dataclasses.replace(totals)
        self.progress(record)


def last_tenth(steps: int) -> int:
    """The step after which the last tenth begins."""
    return steps - max(1, steps // 10)


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(path)


def _completed(request: dict[str, Any]) -> dict[str, Any]:
    """The request of an earlier version, with the fields and options that there were not, as they are by default."""
    try:
        scale, family = Scale(**request["scale"]), get_family(request.get("family", DEFAULT))
    except (TypeError, ValueError):
        return request
    return request | json.loads(json.dumps({"scale": scale.as_dict(), "family": family.as_dict()}))


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, inner in value.items() for k, v in _flatten(inner, f"{name}.{key}".strip(".")).items()}


def _short(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 24 else str(value)
