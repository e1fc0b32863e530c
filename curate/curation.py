"""The curation of a pool from end to end: measure, select, write, report. What `curate filter` and the flow call."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from curate import metrics
from curate.engines import Engine
from curate.errors import RequestError, WorkError
from curate.global_features import global_folders, measure_global, split_features
from curate.kept.night import Night, begin_night, open_state, with_artifacts
from curate.manifest import SELECTION as SELECTION
from curate.manifest import make_manifest
from curate.measure import ShardReport, ShardTask, known_shards, measure_shards, merge_reports, shard_tasks
from curate.metadata.stand_in import fit_recipe
from curate.metadata.subset import write_subset
from curate.pool import Pool
from curate.recipe import Recipe
from curate.select import UNREADABLE, Selection, select, write_selection
from curate.storage import Folder
from curate.write import SAMPLES_PER_SHARD, WrittenShard, write_shards
from filters.safety import Safety

MANIFEST = "manifest.json"
SUBSET = "subset.npy"
REPORT = "report.html"
Progress = Callable[[str, int, int], None]
"""Told the stage, how much of it is done, and how much there is."""
T = TypeVar("T")
log = logging.getLogger(__name__)


class Stage(Protocol):
    """A way to run a named stage of a curation."""

    def __call__(self, name: str, work: Callable[[], T]) -> T: ...


@dataclass(frozen=True)
class Measured:
    """What measuring a pool came to."""

    tasks: tuple[ShardTask, ...]
    reports: tuple[ShardReport, ...]
    seconds: float
    fitted: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What global features say of what they were fitted to."""
    artifacts: dict[str, str] = field(default_factory=dict)
    """Global features' artifacts in the pool's cache."""

    @property
    def samples(self) -> int:
        return sum(report.samples for report in self.reports)

    @property
    def fingerprint(self) -> str:
        """32 hex digits over the pool's shards: their names and what is in them."""
        lines = sorted(f"{report.shard} {report.digest}" for report in self.reports)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]

    def as_dict(self) -> dict[str, Any]:
        measured = [report for report in self.reports if report.measured]
        samples = sum(report.samples for report in measured)
        return {
            "shards_measured": len(measured),
            "shards_cached": len(self.reports) - len(measured),
            "samples_measured": samples,
            "images_decoded": sum(report.images_decoded for report in measured),
            "features_measured": sorted({name for report in measured for name in report.measured}),
            "seconds": round(self.seconds, 3),
            "samples_per_second": round(samples / self.seconds, 1) if samples else None,
        }


def measure(pool: Pool, recipe: Recipe, engine: Engine, progress: Progress | None = None) -> Measured:
    """Fill the cache with every feature of the recipe; measures only what is missing.

    Raises:
        WorkError: no shard holds a sample.
    """
    began = time.perf_counter()
    recipe = fit_recipe(recipe, pool)
    plain, fitted = split_features(recipe.features)
    tasks = tuple(shard_tasks(pool, plain))
    known = known_shards(tasks)
    models = [feature.name for feature in plain if feature.gpu]
    counted = metrics.Measuring(models if models and engine.gpu_here() else ())
    left = [task for task in tasks if task.shard.name not in known]
    reports = [*known.values(), *counted.live(measure_shards(left, engine, progress), len(left))]
    measured = Measured(tasks, merge_reports(reports), time.perf_counter() - began)
    if measured.samples == 0:
        raise WorkError(f"POOL: the shards of {pool.folder.url} hold no samples")
    if fitted:
        found = measure_global(engine, tasks, measured.reports, measured.fingerprint, fitted, progress)
        merged = merge_reports([*measured.reports, *found.reports])
        seconds = time.perf_counter() - began
        measured = Measured(found.tasks, merged, seconds, found.said, found.artifacts)
    facts = measured.as_dict()
    counted.done(facts)
    log.info(
        "%d samples; shards measured: %d, from the cache: %d; images decoded: %d",
        measured.samples, facts["shards_measured"], facts["shards_cached"], facts["images_decoded"],
    )  # fmt: skip
    return measured


def decide(
    engine: Engine, measured: Measured, recipe: Recipe, every_reason: bool = True, night: Night | None = None
) -> Selection:
    """Select, and warn of a filter that seems mistaken."""
    selection = select(engine, measured.tasks, recipe, every_reason, night)
    for line in warnings(selection):
        log.warning(line)
    return selection


def warnings(selection: Selection) -> list[str]:
    """Filters that dropped all, nearly all or nothing of what came in: often a wrong parameter."""
    lines = []
    for step in selection.funnel:
        if step.samples_in and step.dropped >= 0.99 * step.samples_in:
            lines.append(f"{step.filter} dropped {step.dropped} of {step.samples_in} samples")
        elif step.filter != UNREADABLE and step.samples_in >= 1000 and step.dropped == 0:
            lines.append(f"{step.filter} dropped none of {step.samples_in} samples")
    return lines


def run_stage(name: str, work: Callable[[], T]) -> T:
    """Run a stage of a curation as it is; the Prefect flow has another way, as a task."""
    with metrics.stage(name):
        return work()


def curate_pool(
    pool: Pool,
    recipe: Recipe,
    out: Folder,
    engine: Engine,
    *,
    samples_per_shard: int = SAMPLES_PER_SHARD,
    overwrite: bool = False,
    progress: Progress | None = None,
    stage: Stage = run_stage,
    after: str | None = None,
) -> dict[str, Any]:
    """Curate a pool into a dataset at `out` and return its manifest; a killed run resumes when called again.

    Each stage can be run again by itself: what it finished before is on disk, and is not done twice. With `after`, a
    folder or URL, samples are compared with all those curated so before, and added to what that folder remembers.

    Raises:
        RequestError: `out` holds another dataset, and `overwrite` is false; or `after` is of another recipe.
    """
    check_out(pool, out)
    state = None if after is None else open_state(after, recipe)
    if recipe.recaption is not None:
        from curate.recaption.stage import recaptioned  # which measures as this module does

        pool = recaptioned(pool, recipe, engine, progress, stage)
    recipe = fit_recipe(recipe, pool)
    fitted = recipe if state is None else with_artifacts(recipe, state)
    measured = stage("measure", lambda: measure(pool, fitted, engine, progress))
    request = request_of(measured, recipe, samples_per_shard)
    night = None if state is None else begin_night(state, recipe, measured, request)
    request |= {} if night is None else night.request
    done = finished(out, request, overwrite)
    if done is not None and (night is None or night.published):
        log.info("%s is up to date", out.url)
        return done
    began = time.perf_counter()
    chosen = stage("select", lambda: select_to(out, engine, measured, recipe, night))
    selected = time.perf_counter()
    if pool.metadata_only:
        log.info("POOL is metadata only: no shards are written; %s/%s lists the kept uids", out.url, SUBSET)
        written: list[WrittenShard] = []
    else:
        blur = any(isinstance(step.filter, Safety) and step.filter.faces == "blur" for step in recipe.filters)
        written = stage("write", lambda: write_dataset(engine, measured.tasks, out, samples_per_shard, progress, blur))
    seconds = {
        "measure": round(measured.seconds, 3),
        "select": round(selected - began, 3),
        "write": round(time.perf_counter() - selected, 3),
    }
    manifest = make_manifest(pool, recipe, out, measured, chosen, written, seconds, warnings(chosen)) | request
    if pool.recaption is not None:
        manifest["recaption"] = pool.recaption
    if night is not None:
        stage("remember", lambda: night.add(manifest, measured))
        manifest["earlier"] = night.as_dict()
    stage("report", lambda: finish(pool, out, manifest))
    return manifest


def select_to(out: Folder, engine: Engine, measured: Measured, recipe: Recipe, night: Night | None = None) -> Selection:
    """Decide, and write the verdicts to `out`."""
    chosen = decide(engine, measured, recipe, night=night)
    write_selection(chosen, out)
    write_subset(out, SELECTION, SUBSET)
    return chosen


def check_out(pool: Pool, out: Folder) -> None:
    """Refuse to write a dataset into the pool that it is made from."""
    inside = out.root.removeprefix(f"{pool.folder.root}/") if out.root.startswith(f"{pool.folder.root}/") else None
    if out.root == pool.folder.root or (inside is not None and not inside.startswith(("_", "."))):
        raise RequestError(f"OUT: {out.url} lies in the pool; give a folder outside it")
    if out.exists() and out.fs.isfile(out.root):
        raise RequestError(f"OUT: {out.url} is a file; give a folder")


def request_of(measured: Measured, recipe: Recipe, samples_per_shard: int) -> dict[str, Any]:
    """What decides the bytes of a dataset: the same request gives the same dataset."""
    request = {
        "pool_fingerprint": measured.fingerprint,
        "recipe_hash": recipe.hash,
        "samples_per_shard": samples_per_shard,
    }
    fitted = global_folders(measured.tasks[0])
    return request | {"global_features": fitted} if fitted else request


def finished(out: Folder, request: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """The manifest of the dataset at `out`, if it answers this request; None if there is no dataset yet."""
    if not out.exists(MANIFEST):
        return None
    manifest = out.read_json(MANIFEST)
    different = [name for name, value in request.items() if manifest.get(name) != value]
    if not different:
        return manifest
    if not overwrite:
        raise RequestError(
            f"OUT: {out.url} holds a dataset made from another request ({', '.join(different)} differ); "
            "give another folder, or --overwrite"
        )
    out.fs.rm_file(out.path(MANIFEST))
    return None


def write_dataset(
    engine: Engine,
    tasks: Sequence[ShardTask],
    out: Folder,
    samples_per_shard: int,
    progress: Progress | None = None,
    blur: bool = False,
) -> list[WrittenShard]:
    """Write the shards of the selection at `out`, with faces blurred if asked."""
    written = []
    for shard in write_shards(engine, tasks, out, samples_per_shard, blur=blur):
        written.append(shard)
        if progress:
            progress("write", len(written), 0)
    return sorted(written, key=lambda shard: shard.name)


def finish(pool: Pool, out: Folder, manifest: dict[str, Any]) -> None:
    """Write the report and then the manifest, whose presence says that the dataset is whole."""
    from curate.report import write_report

    write_report(out, manifest, pool)
    out.write_json(MANIFEST, manifest)
