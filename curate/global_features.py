"""Global features: fitted on a sample of the pool's columns, saved as an artifact, applied shard by shard.

Their columns lie beside those of other features, in a folder whose name covers the artifact: another pool, sample
or embedding model gives another artifact, and its columns can never be mistaken for these.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.artifacts import ARTIFACTS, Artifact, artifact_digest, load_artifact, read_artifact, save_artifact
from curate.engines import Engine
from curate.errors import RequestError, WorkError
from curate.features.contract import Feature, GlobalFeature, Known
from curate.hashing import facts_hash, uid_hashes
from curate.measure import ShardReport, ShardTask, cached, read_features, with_errors, write_sidecar
from curate.storage import Folder
from curate.targets import Target, read_target

ROWS = 4096
"""Rows that `apply` is given at a time. Constant, so that sums do not depend on how a run was split."""
ORDER = "_order"
Told = Callable[[str, int, int], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleTask:
    """All that a worker needs to pick a shard's rows of the sample: those whose uid hashes to at most `bound`."""

    shard: ShardTask
    columns: tuple[str, ...]
    bound: int


@dataclass(frozen=True)
class ApplyTask:
    """All that a worker needs to apply a fitted feature to one shard. `shard` has the features it reads."""

    shard: ShardTask
    digest: str
    folder: str
    feature: GlobalFeature
    artifact: str


@dataclass(frozen=True)
class Applied:
    """What global features came to: the shards' tasks with these features added, a report for each shard and feature;
    and by a feature's name, what it says of what it was fitted to, and its artifact in the cache."""

    tasks: tuple[ShardTask, ...]
    reports: list[ShardReport]
    said: dict[str, dict[str, Any]]
    artifacts: dict[str, str]


def split_features(features: Sequence[Feature]) -> tuple[list[Feature], list[GlobalFeature]]:
    """The features that are measured from samples, and the global ones, those first that others read.

    Raises:
        RequestError: global features read each other in a circle.
    """
    plain = [f for f in features if not isinstance(f, GlobalFeature)]
    waiting = [f for f in features if isinstance(f, GlobalFeature)]
    found: list[GlobalFeature] = []
    while waiting:
        unmade = {column for feature in waiting for column in feature.columns()}
        ready = [feature for feature in waiting if not unmade & set(feature.reads)]
        if not ready:
            raise RequestError(f"features: {', '.join(f.name for f in waiting)} read each other in a circle")
        found += ready
        waiting = [feature for feature in waiting if feature not in ready]
    return plain, found


def measure_global(
    engine: Engine,
    tasks: Sequence[ShardTask],
    reports: Sequence[ShardReport],
    pool_fingerprint: str,
    features: Sequence[GlobalFeature],
    progress: Told | None = None,
) -> Applied:
    """Fit and apply global features, in their order, to shards whose other features are measured."""
    artifacts: dict[str, Artifact] = {}
    names: dict[str, str] = {}
    digests = {report.shard: report.digest for report in reports}
    samples = sum(report.samples for report in reports)
    made: list[ShardReport] = []
    for feature in features:
        sources = _sources(tasks[0], feature)
        narrow = [replace(task, features=sources) for task in tasks]
        others = tuple(f for _, f in sources)
        targets = {source: _target(engine, source, sources, feature) for source in feature.targets}
        earlier = {f.name: artifacts[f.name] for _, f in sources if f.name in artifacts}
        known = Known(samples, earlier, others, {source: target.rows for source, target in targets.items()})
        key = _key(feature, sources, pool_fingerprint, [target.digest for target in targets.values()])
        name = f"{ARTIFACTS}/{feature.name}-{key}.npz"
        artifact = _fitted(engine, narrow, samples, feature, name, known)
        artifacts[feature.name], names[feature.name] = artifact, name
        folder = f"{feature.name}-{_fingerprint(feature, sources, artifact)}"
        work = [ApplyTask(task, digests[task.shard.name], folder, feature, name) for task in narrow]
        here = feature.gpu and engine.gpu_here()
        for report in map(apply_shard, work) if here else engine.map(apply_shard, work):
            made.append(report)
            if progress:
                progress(feature.name, len(made) % len(work) or len(work), len(work))
        tasks = [replace(task, features=(*task.features, (folder, feature))) for task in tasks]
    said = {feature.name: feature.report(artifacts[feature.name]) for feature in features}
    return Applied(tuple(tasks), made, {name: facts for name, facts in said.items() if facts}, names)


def apply_shard(task: ApplyTask) -> ShardReport:
    """Fill a global feature's columns of a shard, if the cache lacks them; any engine may call this."""
    began = time.perf_counter()
    name = task.shard.shard.name
    if (fact := cached(task.shard, task.folder)) is not None:
        return ShardReport(name, fact["digest"], fact["samples"], (), 0, time.perf_counter() - began)
    feature, artifact = task.feature, _loaded(task.shard.cache, task.artifact, task.folder)
    rows = read_features(task.shard, list(dict.fromkeys(("uid", *feature.reads))))
    parts = []
    for first in range(0, len(rows), ROWS):
        part = rows.slice(first, ROWS)
        try:
            columns = feature.apply(artifact, part)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise WorkError(f"{name}: {feature.name} failed: {' '.join(str(error).split())}") from error
        parts.append(with_errors(feature, {n: _whole(v) for n, v in columns.items()}, [None] * len(part)))
    write_sidecar(task.shard, task.folder, feature, parts, task.digest)
    return ShardReport(name, task.digest, len(rows), (feature.name,), 0, time.perf_counter() - began)


def _whole(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def sample_rows(
    engine: Engine, tasks: Sequence[ShardTask], columns: Sequence[str], samples: int, wanted: int
) -> pa.Table:
    """At most `wanted` of the pool's rows, `uid` and some columns, in uid order: those whose uid hashes lowest.

    Which they are depends on the uids alone, not on shards, workers or the engine.
    """
    bound = _bound(samples, wanted)
    names = tuple(c for c in dict.fromkeys(columns) if c != "uid")
    found = list(engine.map(sample_shard, [SampleTask(task, names, bound) for task in tasks]))
    rows = pa.concat_tables(found)
    lowest = pc.sort_indices(rows.select([ORDER, "uid"]), sort_keys=[(ORDER, "ascending"), ("uid", "ascending")])
    rows = rows.take(lowest[:wanted]).drop_columns(ORDER)
    return rows.take(pc.sort_indices(rows["uid"]))


def sample_shard(task: SampleTask) -> pa.Table:
    """The rows of one shard that may belong to the sample, and their hashes as `_order`."""
    rows = read_features(task.shard, ["uid", *task.columns])
    order = uid_hashes(rows["uid"])
    return rows.append_column(ORDER, pa.array(order)).filter(pa.array(order <= np.uint64(task.bound)))


def _bound(samples: int, wanted: int) -> int:
    """A hash below which at least `wanted` of the samples lie (but for one pool in a billion) and few more."""
    most = 2**64 - 1
    if wanted >= samples:
        return most
    return min(most, int(most * (wanted + 6 * math.sqrt(wanted) + 16) / samples))


def _sources(task: ShardTask, feature: GlobalFeature) -> tuple[tuple[str, Feature], ...]:
    """The features that own the columns it needs, with their folders."""
    needed = {"uid", *feature.reads, *(feature.compares if feature.targets else ())}
    found = tuple(named for named in task.features if needed & set(named[1].columns()))
    if lost := needed - {column for _, f in found for column in f.columns()}:
        raise RequestError(f"features.{feature.name} reads {', '.join(sorted(lost))}, which no feature measures")
    return found


def _fitted(
    engine: Engine, tasks: Sequence[ShardTask], samples: int, feature: GlobalFeature, name: str, known: Known
) -> Artifact:
    """The feature's artifact: the one it names, or the cache's, or fitted now; in the cache when this returns."""
    cache = tasks[0].cache
    if (found := load_artifact(cache, name)) is not None:
        return found
    if path := getattr(feature, "artifact", None):
        found = read_artifact(path, f"features.{feature.name}.artifact")
    else:
        began = time.perf_counter()
        wanted = feature.sample_rows
        rows = sample_rows(engine, tasks, feature.reads, samples, wanted) if wanted else None
        found = feature.fit_with(_no_rows(tasks[0], feature) if rows is None else rows, known)
        count = 0 if rows is None else len(rows)
        log.info("%s fitted on %d samples in %.1f s", feature.name, count, time.perf_counter() - began)
    save_artifact(cache, name, found)
    return found


def _no_rows(task: ShardTask, feature: GlobalFeature) -> pa.Table:
    types = {field.name: field.type for _, f in task.features for field in f.arrow_schema()}
    return pa.schema([(name, types[name]) for name in dict.fromkeys(("uid", *feature.reads))]).empty_table()


def _target(engine: Engine, source: str, sources: Sequence[tuple[str, Feature]], feature: GlobalFeature) -> Target:
    return read_target(engine, source, [f for _, f in sources], feature.compares, f"features.{feature.name}")


def _key(
    feature: GlobalFeature, sources: Sequence[tuple[str, Feature]], pool_fingerprint: str, targets: Sequence[str]
) -> str:
    """What an artifact is found by: all that fitting depends on. Only a fit on rows depends on the pool."""
    fitted = feature.sample_rows > 0 and not getattr(feature, "artifact", None)
    depends = {"weights": feature.weights_digest(), "pool": pool_fingerprint * fitted, "targets": list(targets)}
    return facts_hash(_facts(feature, sources) | depends)


def _fingerprint(feature: GlobalFeature, sources: Sequence[tuple[str, Feature]], artifact: Artifact) -> str:
    return facts_hash(_facts(feature, sources) | {"artifact": artifact_digest(artifact)})


def _facts(feature: GlobalFeature, sources: Sequence[tuple[str, Feature]]) -> dict[str, Any]:
    folders = sorted(folder for folder, f in sources if set(f.columns()) & set(feature.reads))
    parameters = feature.model_dump(mode="json", exclude={"artifact"})
    return {"name": feature.name, "version": feature.version, "parameters": parameters, "reads": folders}


@lru_cache(maxsize=1)
def _loaded(cache: Folder, name: str, _folder: str) -> Artifact:
    """The artifact, once per process; the folder tells one from another that was fitted later under its name."""
    found = load_artifact(cache, name)
    if found is None:
        raise WorkError(f"{cache.path(name)} is gone; run the command again")
    return found


def global_folders(task: ShardTask) -> dict[str, str]:
    """Where the columns of the global features lie, by feature name."""
    return {f.name: folder for folder, f in task.features if isinstance(f, GlobalFeature)}
