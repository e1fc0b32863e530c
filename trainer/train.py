"""Trains the reference model on a folder of shards. Run it under torchrun to use several GPUs."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from trainer import run
from trainer.checkpoint import load_state, save_checkpoint, save_state
from trainer.data import CachedData, DataReport, StreamedData, open_data
from trainer.distributed import World, has_bf16, open_world
from trainer.family import DEFAULT, Family, Outputs, get_family
from trainer.mfu import flops_per_sample, peak_flops
from trainer.model import normalise, parameter_groups
from trainer.progress import Progress, show_progress
from trainer.run import Metrics, Totals, TrainResult
from trainer.scales import Scale, get_scale
from trainer.shards import fingerprint, list_shards
from trainer.step import attention, backward, random_state, set_random_state

log = logging.getLogger(__name__)


def train(
    shards: str | Path,
    out: str | Path,
    *,
    scale: str | Scale = "tiny",
    family: str | Mapping[str, Any] | Family = DEFAULT,
    seed: int = 0,
    samples_seen: int | None = None,
    device: str | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> TrainResult:
    """Trains a fresh model and writes `OUT/checkpoint/`, `OUT/metrics.jsonl` and `OUT/train.json`.

    The same shards, scale and seed give the same weights on the same machine, resumed or not. A finished OUT
    is returned at once; an interrupted one goes on from its last saved state.

    Args:
        shards: a folder or fsspec URL of WebDataset shards (image + txt, or json with "caption").
        out: the folder to write; made if missing.
        scale: a name of `trainer.scales.SCALES`, or a `Scale`.
        family: a name of `trainer/families/`, a mapping of `name` and options, or a `Family`.
        samples_seen: overrides the scale's, and with it the compute.
        device: "cpu", "cuda", ...; by default the GPU if there is one.
        resume: False starts over, even if OUT is finished.
        progress: called with each record of `metrics.jsonl`; by default a bar or log lines.

    Raises:
        ValueError: the scale, the family, the shards or the device are wrong, or OUT holds a training of another
            request.
        OSError: the shards cannot be read, or OUT cannot be written.
        FloatingPointError: the training diverged.
    """
    family = get_family(family)
    scale = family.configure(get_scale(scale))
    if samples_seen is not None:
        scale = dataclasses.replace(scale, samples_seen=samples_seen)
    urls, folder = list_shards(str(shards)), Path(out)
    request = {"family": family.as_dict(), "scale": scale.as_dict(), "seed": seed, "data": fingerprint(urls)}
    with open_world(device) as world, attention(world.device):
        if scale.batch_size % (world.size * scale.accumulate):
            by = f"{world.size} processes" + (f" x {scale.accumulate} parts" if scale.accumulate > 1 else "")
            raise ValueError(f"scale: batch_size {scale.batch_size} does not divide by {by}")
        run.check_request(folder, request)
        if resume and (finished := run.read_result(folder)):
            return finished
        world.gather(None)  # all have looked before one writes
        if world.is_main:
            run.claim(folder, request, resume)
        world.gather(None)
        training = Training(family, scale, seed, urls, world)
        training.restore(folder / "state.pt")
        if not world.is_main:
            training.run(folder, lambda record: None)
        elif progress:
            training.run(folder, progress)
        else:
            with show_progress(scale.steps, scale.batch_size) as show:
                training.run(folder, show)
        return training.finish(folder, request)


class Training:
    """A model, its data and its optimizer at some step."""

    def __init__(self, family: Family, scale: Scale, seed: int, shards: list[str], world: World):
        self.family, self.scale, self.seed, self.world = family, scale, seed, world
        self.totals, self.ticked = Totals(), time.perf_counter()
        self.flops = 0.0  # per sample; counted at the first step
        self.precision = "bf16" if scale.precision == "bf16" and has_bf16(world.device) else "fp32"
        self.data: CachedData | StreamedData = open_data(shards, scale, family.tokenizer(scale), family.text)
        self.model: Any = family.build(scale, seed, world.device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, scale.weight_decay),
            lr=scale.lr,
            betas=(scale.beta1, scale.beta2),
            eps=scale.eps,
            fused=True,
        )

    def run(self, folder: Path, progress: Progress) -> None:
        """Trains from the present step to the last one."""
        scale, totals, model = self.scale, self.totals, self._wrapped()
        bf16 = torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        metrics = Metrics(folder / "metrics.jsonl", totals, scale, progress) if self.world.is_main else None
        self._tick()
        for images, tokens in self._batches():
            lr = learning_rate(totals.step, scale) * self.family.before_step(self.model, totals.step, scale.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            if metrics and not self.flops:
                self.flops = flops_per_sample(self.model, self.family, images, tokens, bf16)
                self._tick()
            self.optimizer.zero_grad()
            loss, outputs = backward(model, self.family, images, tokens, self.world, scale.accumulate, bf16)
            self.optimizer.step()
            with torch.no_grad():
                self.family.after_step(self.model)
            totals.step += 1
            if not math.isfinite(value := loss.item()):
                raise FloatingPointError(f"the loss is {value} at step {totals.step}: try a lower learning rate")
            totals.training_seconds += self._tick()
            if metrics:
                metrics.note(value, lr, self.mfu, **scalars(outputs))
                if totals.step % scale.save_steps == 0 and totals.step < scale.steps:
                    self.save(folder / "state.pt")

    def finish(self, folder: Path, request: dict[str, Any]) -> TrainResult:
        """Writes the checkpoint and the result, which every process returns."""
        report = self.data.report
        if isinstance(self.data, StreamedData):  # each process read its own part
            report = DataReport.merged(self.world.gather(report))
        result = None
        if self.world.is_main:
            save_checkpoint(self.model, self.family, self.scale, folder / "checkpoint")
            self._tick()
            how: dict[str, Any] = {"device": str(self.world.device), "precision": self.precision}
            rate = self.scale.steps * self.scale.batch_size / self.totals.training_seconds
            how |= {"flops_per_sample": self.flops, "mfu": self.mfu(rate)}
            result = run.make_result(folder, request, self.scale, self.totals, report, how)
            run.write_result(result)
        return self.world.gather(result)[0]

    def mfu(self, samples_per_second: float) -> float | None:
        """The share of all devices' peak that is reached, 0..1; None where the peak is not known."""
        peak = peak_flops(self.world.device, self.precision)
        return round(self.flops * samples_per_second / (peak * self.world.size), 4) if peak else None

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images (B, 3, S, S) and tokens (B, L) on the device, timing how long each batch is waited for."""
        scale, world = self.scale, self.world
        batches = self.data.batches(scale, self.seed, self.totals.step, world.rank, world.size)
        started = time.perf_counter()
        for batch in batches:
            images = batch.images.to(world.device, non_blocking=True)
            tokens = batch.tokens.to(world.device, non_blocking=True)
            self.totals.waiting_seconds += time.perf_counter() - started
            yield normalise(images, scale), tokens
            started = time.perf_counter()

    def _tick(self) -> float:
        """Seconds since the last tick, also added to the totals."""
        now = time.perf_counter()
        elapsed, self.ticked = now - self.ticked, now
        self.totals.seconds += elapsed
        return elapsed

    def _wrapped(self) -> torch.nn.Module:
        model: Any = self.model
        if self.scale.compile and self.world.device.type == "cuda":
            model = torch.compile(model)
        if self.world.size > 1:
            staged = self.family.staged  # a graph that changes is searched for what it leaves out
            static = not staged and self.scale.accumulate == 1
            model = DistributedDataParallel(model, static_graph=static, find_unused_parameters=staged)
        return model

    def save(self, path: Path) -> None:
        """Writes all that the next steps depend on."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "totals": dataclasses.asdict(self.totals),
            **random_state(self.world.device),
        }
        save_state(path, state)

    def restore(self, path: Path) -> None:
        """Goes back to a saved step, if there is one."""
        if not path.is_file():
            return
        state = load_state(path)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        set_random_state(state, self.world.device)
        self.totals = Totals(**state["totals"])
        log.info("resuming at step %d of %d", self.totals.step, self.scale.steps)


def scalars(outputs: Outputs) -> dict[str, float]:
    """The single numbers among a model's outputs, such as the logit scale."""
    return {name: value.item() for name, value in outputs.items() if value.numel() == 1}


def learning_rate(step: int, scale: Scale) -> float:
    """The rate of a step counted from 0: a linear warmup to `scale.lr`, then a cosine down to 0."""
    warmup = min(scale.warmup, scale.steps // 5)
    if step < warmup:
        return scale.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, scale.steps - warmup)
    return scale.lr * 0.5 * (1 + math.cos(math.pi * done))
