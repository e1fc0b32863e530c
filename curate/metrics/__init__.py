"""Counters of what runs did, for Prometheus: on where `CURATE_METRICS` names a folder. docs/metrics.md.

Callers say what happened, with the very numbers of manifests and reports; what that is called is here.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curate.metrics.ledger import LEDGER, check, enabled
from curate.metrics.names import METRICS
from curate.storage import Folder

if TYPE_CHECKING:
    from curate.drift import Move
    from curate.measure import ShardReport

__all__ = [
    "METRICS", "Measuring", "accuracies", "check", "crawled", "dataset_at", "downloaded", "drift", "enabled", "flush",
    "progress", "ran", "stage", "trained",
]  # fmt: skip
flush = LEDGER.flush
_MANIFEST = "manifest.json"


def ran(flow: str, deployment: str, success: bool, seconds: float | None = None) -> None:
    """A run of a flow, or of a command, ended."""
    run = {"flow": flow, "deployment": deployment}
    for outcome in ("success", "failure"):  # both, so that the first failure is a step from 0 that Prometheus sees
        LEDGER.add("curate_runs_total", float(success == (outcome == "success")), outcome=outcome, **run)
    now = time.time()
    LEDGER.set("curate_last_run_success", float(success), **run)
    LEDGER.set("curate_last_run_timestamp_seconds", now, **run)
    if success:
        LEDGER.set("curate_last_success_timestamp_seconds", now, **run)
    if seconds is not None:
        LEDGER.set("curate_run_seconds", round(seconds, 3), **run)
    LEDGER.flush()


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Time a stage, by the first word of its name; processor time is that of this process and its ended workers."""
    if not enabled():
        yield
        return
    label, began, cpu = name.split()[0], time.perf_counter(), _cpu()
    try:
        yield
    except BaseException:
        LEDGER.add("curate_stage_failures_total", stage=label)
        raise
    finally:
        LEDGER.add("curate_stage_seconds_total", time.perf_counter() - began, stage=label)
        LEDGER.add("curate_stage_cpu_seconds_total", _cpu() - cpu, stage=label)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def progress(stage: str, done: int, total: int) -> None:
    """How far a long stage is, in shards."""
    LEDGER.set("curate_stage_shards_done", done, stage=stage)
    LEDGER.set("curate_stage_shards", total, stage=stage)


class Measuring:
    """Counts samples while they are measured, so that a run that is killed has counted what it did."""

    def __init__(self, gpu: Collection[str] = ()) -> None:
        """`gpu`: features whose time is a GPU's."""
        self._gpu, self._shards, self._samples, self._images = set(gpu), set[str](), 0, 0

    def live(self, reports: Iterable[ShardReport], total: int) -> Iterator[ShardReport]:
        """The same reports, counted; `total` shards are asked for."""
        for number, report in enumerate(reports, 1):
            if report.measured and report.shard not in self._shards:  # a GPU's features come in a pass of their own
                self._shards.add(report.shard)
                self._count(report.samples, report.images_decoded)
            if self._gpu.intersection(report.measured):
                LEDGER.add("curate_stage_gpu_seconds_total", report.seconds, stage="measure")
            progress("measure", min(number, total), total)
            yield report

    def done(self, facts: Mapping[str, Any]) -> None:
        """Count what is left of the manifest's `measure`, so that both say the same."""
        self._count(max(0, facts["samples_measured"] - self._samples), max(0, facts["images_decoded"] - self._images))
        if facts["samples_per_second"]:
            LEDGER.set("curate_measure_samples_per_second", facts["samples_per_second"])

    def _count(self, samples: int, images: int) -> None:
        self._samples, self._images = self._samples + samples, self._images + images
        LEDGER.add("curate_samples_measured_total", samples)
        LEDGER.add("curate_images_decoded_total", images)


def dataset_at(out: Folder) -> Callable[[Mapping[str, Any]], None]:
    """What to call with the manifest of `out` when it is made; one that was there before is not counted again."""
    if not enabled():
        return lambda manifest: None
    before = out.read_json(_MANIFEST) if out.exists(_MANIFEST) else None
    return lambda manifest: None if manifest == before else _dataset(manifest)


def _dataset(manifest: Mapping[str, Any]) -> None:
    recipe, selection = manifest["name"], manifest["selection"]
    LEDGER.add("curate_samples_kept_total", selection["kept"], recipe=recipe)
    LEDGER.set("curate_keep_ratio", selection["kept"] / max(1, selection["rows"]), recipe=recipe)
    LEDGER.add("curate_written_bytes_total", sum(shard["bytes"] for shard in manifest["shards"]), recipe=recipe)
    for step in manifest["funnel"]:
        LEDGER.add("curate_samples_dropped_total", step["dropped"], recipe=recipe, filter=step["filter"])
        if step["in"]:
            LEDGER.set("curate_filter_keep_ratio", step["out"] / step["in"], recipe=recipe, filter=step["filter"])
    LEDGER.flush()


def crawled(report: Mapping[str, Any]) -> None:
    """A crawl ended with this report."""
    LEDGER.add("curate_crawl_pages_total", report["pages_read"], outcome="read")
    for reason, pages in report["failures"].items():
        LEDGER.add("curate_crawl_pages_total", pages, outcome=reason)
    LEDGER.add("curate_crawl_pairs_total", report["pairs"])


def downloaded(report: Mapping[str, Any], files: Mapping[str, int]) -> None:
    """A download ended with this report, and made these files of so many bytes."""
    LEDGER.add("curate_downloads_total", report["downloaded"], outcome="downloaded")
    for reason, images in report["failed"].items():
        LEDGER.add("curate_downloads_total", images, outcome=reason)
    LEDGER.add("curate_downloaded_bytes_total", sum(size for name, size in files.items() if name.endswith(".tar")))


def trained(samples: int, seconds: float, per_second: float, loss: float, device: str) -> None:
    """A training ended; `seconds` of it were on `device`."""
    kind = device.partition(":")[0]
    LEDGER.add("curate_training_samples_total", samples, device=kind)
    LEDGER.set("curate_training_samples_per_second", per_second, device=kind)
    LEDGER.set("curate_training_loss", loss)
    if kind != "cpu":
        LEDGER.add("curate_stage_gpu_seconds_total", seconds, stage="train")


def accuracies(experiment: str, arms: Iterable[Mapping[str, Any]]) -> None:
    """An experiment's arms reached these values."""
    for arm in arms:
        LEDGER.set("curate_accuracy_ratio", arm["value"], experiment=experiment, arm=arm["name"])


def drift(recipe: str, moves: Sequence[Move], new: bool = True) -> None:
    """A dataset was compared with those before; alarms of one that was compared before are not counted again."""
    for kind in ("keep rate", "distribution"):
        alarms = sum(move.alarm for move in moves if move.kind == kind)
        LEDGER.add("curate_drift_alarms_total", alarms if new else 0, recipe=recipe, kind=kind)
    for move in moves:
        LEDGER.set("curate_drift_change", move.change, recipe=recipe, kind=move.kind, what=move.what)
        LEDGER.set("curate_drift_bound", move.bound, recipe=recipe, kind=move.kind, what=move.what)
