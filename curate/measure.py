"""Measure: one pass over a shard fills the features that its cache lacks, and nothing else.

Features of a shard lie in `<cache>/<feature>-<fingerprint>/<shard>.parquet`: one row per sample in tar order,
the feature's columns and an `error`. The footer says which shard they were measured from.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import WorkError
from curate.features.batch import Batch
from curate.features.contract import Feature
from curate.hashing import file_digest
from curate.metadata.shards import is_metadata, metadata_digest, read_metadata
from curate.pool import Pool, Shard
from curate.shards import Sample, read_samples
from curate.storage import Folder
from curate.threads import threaded

if TYPE_CHECKING:
    from curate.engines import Engine

BATCH = 64
"""Samples measured together. Constant, so that a model's sums do not depend on how a run was split."""
ERROR = "error"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to measure one shard."""

    pool: Folder
    cache: Folder
    shard: Shard
    features: tuple[tuple[str, Feature], ...]
    """Folder in the cache, and the feature."""


@dataclass(frozen=True)
class ShardReport:
    """What measuring a shard came to. `samples` counts every row, unreadable ones too."""

    shard: str
    digest: str
    samples: int
    measured: tuple[str, ...]
    images_decoded: int
    seconds: float


def shard_tasks(pool: Pool, features: Sequence[Feature]) -> list[ShardTask]:
    """One task per shard. Fingerprints are taken once, here: they may read large weights."""
    named = tuple((feature.folder, feature) for feature in features)
    return [ShardTask(pool.folder, pool.cache, shard, named) for shard in pool.shards]


def known_shards(tasks: Sequence[ShardTask]) -> dict[str, ShardReport]:
    """The reports of the shards that the cache has whole, by name.

    Where the cache is here its footers are read here: 7,000 in a second, when no worker has started yet.
    """
    if not tasks or not tasks[0].cache.is_local:
        return {}
    found = threaded(known_shard, tasks)
    return {report.shard: report for report in found if report is not None}


def known_shard(task: ShardTask) -> ShardReport | None:
    """The report of a shard of which nothing is missing."""
    began, fact = time.perf_counter(), None
    for folder, _ in task.features:
        if (fact := cached(task, folder)) is None:
            return None
    if fact is None:
        return None
    return ShardReport(task.shard.name, fact["digest"], fact["samples"], (), 0, time.perf_counter() - began)


def measure_shard(task: ShardTask) -> ShardReport:
    """Measure what the cache lacks of a shard; any engine may call this, in any process, again and again."""
    began = time.perf_counter()
    facts = [cached(task, folder) for folder, _ in task.features]
    missing = [named for named, fact in zip(task.features, facts, strict=True) if fact is None]
    known = next((fact for fact in facts if fact is not None), None)
    if not missing and known is not None:
        return ShardReport(task.shard.name, known["digest"], known["samples"], (), 0, time.perf_counter() - began)
    with task.pool.local_copy(task.shard.name) as path:
        digest = _digest(task, path)
        columns: list[list[pa.RecordBatch]] = [[] for _ in missing]
        samples = decoded = 0
        for batch in _read(task, path):
            for (_, feature), parts in zip(missing, columns, strict=True):
                parts.append(_measure_batch(feature, batch))
            samples += len(batch)
            decoded += len(batch.decoded)
    for (folder, feature), parts in zip(missing, columns, strict=True):
        write_sidecar(task, folder, feature, parts, digest)
    names = tuple(feature.name for _, feature in missing)
    return ShardReport(task.shard.name, digest, samples, names, decoded, time.perf_counter() - began)


def measure_shards(
    tasks: Sequence[ShardTask], engine: Engine, progress: Callable[[str, int, int], None] | None
) -> Iterator[ShardReport]:
    """Measure shards that lack something: what runs a model on the GPU, if there is one, the rest on any worker."""
    models = [named for named in tasks[0].features if named[1].gpu] if tasks else []
    on_gpu = models if models and engine.gpu_here() else []
    work = [replace(task, features=tuple(f for f in task.features if f not in on_gpu)) for task in tasks]
    for number, report in enumerate(engine.map(measure_shard, work), 1):
        yield report
        if progress:
            progress("measure", number, len(tasks))
    for _, feature in on_gpu:
        from curate.measure_gpu import measure_on_gpu

        for number, report in enumerate(measure_on_gpu(work, feature, engine.workers), 1):
            yield report
            if progress:
                progress(feature.name, number, len(tasks))


def merge_reports(reports: Sequence[ShardReport]) -> tuple[ShardReport, ...]:
    """One report per shard, in name order, where some shards were measured in two passes."""
    merged: dict[str, ShardReport] = {}
    for report in sorted(reports, key=lambda r: r.shard):
        if (first := merged.get(report.shard)) is not None:
            report = replace(
                report,
                measured=first.measured + report.measured,
                images_decoded=max(first.images_decoded, report.images_decoded),
                seconds=first.seconds + report.seconds,
            )
        merged[report.shard] = report
    return tuple(merged.values())


def write_sidecar(task: ShardTask, folder: str, feature: Feature, parts: Sequence[pa.RecordBatch], digest: str) -> None:
    """Write a feature of a shard, and in its footer what it was measured from."""
    samples = sum(len(part) for part in parts)
    fact = {"shard": task.shard.name, "stamp": task.shard.stamp, "digest": digest, "samples": samples}
    schema = _schema(feature).with_metadata({b"curate": json.dumps(fact).encode()})
    table = pa.Table.from_batches([part.cast(schema) for part in parts], schema)
    task.cache.write_parquet(sidecar(folder, task.shard.name), table)


def one_thread() -> None:
    """Prepare a worker process: there is one per core, so its libraries need no threads of their own."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"


def sidecar(folder: str, shard: str) -> str:
    """Where a feature of a shard lies in the cache.

    >>> sidecar("phash-1f0c2b9a77de", "00000.tar")
    'phash-1f0c2b9a77de/00000.parquet'
    """
    return f"{folder}/{shard.removesuffix('.tar')}.parquet"


def read_features(task: ShardTask, columns: Sequence[str]) -> pa.Table:
    """The named columns of a measured shard, side by side, one row per sample in tar order.

    Where two features have a column of one name, it is the first's. `error` is the first error that any of the
    task's features met, for a sample that has one.
    """
    found: dict[str, pa.ChunkedArray] = {}
    errors: pa.ChunkedArray | None = None
    samples = 0
    for folder, feature in task.features:
        wanted = [c for c in columns if c in feature.columns()] + ([ERROR] if ERROR in columns else [])
        if not wanted:
            continue
        with task.cache.parquet(sidecar(folder, task.shard.name)) as file:
            if ERROR in wanted and _no_errors(file.metadata):
                wanted.remove(ERROR)
                samples = file.metadata.num_rows
            table = file.read(columns=wanted, use_threads=False)  # shards are read side by side, not columns
        found = {name: table[name] for name in wanted if name != ERROR} | found
        if ERROR in wanted:
            errors = table[ERROR] if errors is None else pa.compute.coalesce(errors, table[ERROR])
    if ERROR in columns:
        found[ERROR] = pa.chunked_array([pa.nulls(samples, pa.string())]) if errors is None else errors
    return pa.table({name: found[name] for name in columns})


def _no_errors(footer: pq.FileMetaData) -> bool:
    """Whether a sidecar's footer says that no sample had an error: then its last column need not be read."""
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        said = group.column(group.num_columns - 1).statistics
        if said is None or not said.has_null_count or said.null_count < group.num_rows:
            return False
    return True


def cached(task: ShardTask, folder: str) -> dict | None:
    """The facts in the footer of a sidecar, if it was measured from this very shard."""
    name = sidecar(folder, task.shard.name)
    try:
        with task.cache.parquet(name) as file:
            fact = json.loads(file.metadata.metadata[b"curate"])
    except FileNotFoundError:
        return None
    except (pa.ArrowInvalid, KeyError, ValueError):
        log.warning("%s is damaged and will be measured again", task.cache.path(name))
        return None
    if fact["stamp"] == task.shard.stamp:
        return fact
    with task.pool.local_copy(task.shard.name) as path:  # touched or copied, perhaps not changed
        return fact if _digest(task, path) == fact["digest"] else None


def _read(task: ShardTask, path: str) -> Iterator[Batch]:
    """The samples of a shard, of which `path` is a local copy."""
    if is_metadata(task.shard.name):
        return read_metadata(task.pool, task.shard.name, path)
    return batches(task.shard.name, read_samples(path))


def _digest(task: ShardTask, path: str) -> str:
    if is_metadata(task.shard.name):
        return metadata_digest(task.pool, task.shard.name, path)
    return file_digest(path)


def batches(shard: str, samples: Iterator[Sample], size: int = BATCH) -> Iterator[Batch]:
    """Cut a shard's samples into batches."""
    while chunk := list(itertools.islice(samples, size)):
        yield Batch(shard, chunk)


def _schema(feature: Feature) -> pa.Schema:
    return feature.arrow_schema().append(pa.field(ERROR, pa.string()))


def _measure_batch(feature: Feature, batch: Batch) -> pa.RecordBatch:
    """A feature's columns and errors; when it fails on the batch, sample by sample to find the culprit."""
    try:
        columns, failure = feature.measure(batch), None
    except Exception as error:
        if len(batch) > 1:
            single = [_measure_batch(feature, batch.one(place)) for place in range(len(batch))]
            return pa.concat_batches(single)
        if feature.name == "index":
            raise WorkError(f"{batch.shard}: {batch.samples[0].key}: {error}") from error
        columns = {field.name: pa.nulls(1, field.type) for field in feature.arrow_schema()}
        failure = f"{feature.name} failed: {' '.join(str(error).split())}"
    return with_errors(feature, columns, [found or failure for found in sample_errors(feature, batch)])


def sample_errors(feature: Feature, batch: Batch) -> list[str | None]:
    """Why a feature could not measure a sample, for each of the batch: what is wrong with what it needs."""
    errors = []
    for place, sample in enumerate(batch.samples):
        found = sample.error
        if found is None and ("header" in feature.needs or "image" in feature.needs):
            found = batch.open_errors.get(place)
        if found is None and "image" in feature.needs:
            found = batch.decode_errors.get(place)
        errors.append(found)
    return errors


def with_errors(feature: Feature, columns: dict[str, pa.Array], errors: list[str | None]) -> pa.RecordBatch:
    """A sidecar's rows."""
    schema = _schema(feature)
    values = columns | {ERROR: pa.array(errors, pa.string())}
    return pa.record_batch([values[name] for name in schema.names], schema=schema)
