"""Recaptioning from end to end: candidates, captions, judging, mixing, writing. The command and the flow call it."""

from __future__ import annotations

import logging
import platform
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import __version__
from curate.curation import MANIFEST, Measured, Progress, Stage, check_out, finished, measure, run_stage
from curate.engines import Engine
from curate.errors import RequestError, WorkError
from curate.measure import ShardTask
from curate.pool import Pool
from curate.recaption.ask import Asked, ShardWork, ask, questions
from curate.recaption.candidates import find_candidates
from curate.recaption.check import run_checks
from curate.recaption.journal import Journals
from curate.recaption.measures import measure_captions
from curate.recaption.mix import mix
from curate.recaption.settings import Settings
from curate.recaption.statistics import caption_statistics
from curate.recaption.table import caption_table
from curate.recaption.write import RecaptionedShard, out_names, remove_others, write_recaptioned
from curate.report.finished import open_finished
from curate.storage import Folder

CAPTIONS = "_captions"
"""Folder of a pool's cache that keeps what backends wrote for it."""
MEASURES = "_measures"
log = logging.getLogger("curate.recaption")


@dataclass(frozen=True)
class Judged:
    """All captions of the candidates, judged and mixed, and how many requests another run asks again."""

    work: tuple[ShardWork, ...]
    captions: pa.Table
    ask_again: int


def recaption_pool(
    pool: Pool,
    settings: Settings,
    out: Folder,
    engine: Engine,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    stage: Stage = run_stage,
) -> dict[str, Any]:
    """Write the pool with new captions to `out` and return the manifest; a killed run resumes when called again.

    What a backend answered is kept in the pool's cache, so nothing is asked twice, by this run or by another with
    other candidates, checks or another mix. A finished run that had requests fail is run again for those.

    Raises:
        RequestError: the request is wrong, or `out` holds something else and `overwrite` is false.
        WorkError: no caption could be written at all.
    """
    if pool.metadata_only:
        raise RequestError("POOL: it is metadata only; there are no images to describe")
    check_out(pool, out)
    began = time.perf_counter()
    measured = stage("measure", lambda: measure(pool, settings.recipe, engine, progress))
    request = {"pool_fingerprint": measured.fingerprint, "settings_hash": settings.hash}
    if settings.dropped is not None:
        request["dropped"] = open_finished(settings.dropped.of)[1]["selection"]["sha256"]
    done = finished(out, request, overwrite)
    if done is not None and not done["counts"]["ask_again"]:
        log.info("%s is up to date", out.url)
        return done
    work = candidates(engine, measured, settings)
    journals = Journals(pool.cache / f"{CAPTIONS}/{settings.backend_folder}")
    asking = time.perf_counter()
    asked = stage("recaption", lambda: ask(work, settings, journals, progress))
    judging = time.perf_counter()
    judged = stage("judge", lambda: judge(work, settings, journals, pool, engine, progress))
    writing = time.perf_counter()
    if out.exists(MANIFEST):  # of the run before, which some requests failed
        out.fs.rm_file(out.path(MANIFEST))
    shards = stage("write", lambda: write(engine, measured, judged, out, progress))
    seconds = {"measure": asking - began, "captions": judging - asking, "judge": writing - judging,
               "write": time.perf_counter() - writing}  # fmt: skip
    manifest = make_manifest(pool, settings, measured, judged, shards, asked, seconds) | request
    stage("report", lambda: finish(pool, out, manifest, measured.tasks, judged))
    return manifest


def preview_pool(pool: Pool, settings: Settings, engine: Engine, progress: Progress | None = None) -> dict[str, Any]:
    """How many captions a run would ask for, and how many of them are known; asks for none."""
    work = candidates(engine, measure(pool, settings.recipe, engine, progress), settings)
    journals = Journals(pool.cache / f"{CAPTIONS}/{settings.backend_folder}")
    known = 0
    for shard in work:
        said = journals.known(shard.task.shard.name)
        known += sum(1 for question in questions(shard, settings) if (a := said.get(question.id)) and a.final)
    found = sum(len(shard.rows) for shard in work)
    return {"candidates": found, "requests": found * settings.samples_per_image, "known": known,
            "backend": settings.backend_facts, "prompts": list(settings.prompts)}  # fmt: skip


def candidates(engine: Engine, measured: Measured, settings: Settings) -> tuple[ShardWork, ...]:
    """The candidates of each shard that has some, in pool order."""
    needs_image = settings.backend.needs_image
    rows = find_candidates(engine, measured.tasks, settings.candidates, settings.dropped, needs_image)
    log.info("%d of %d samples are candidates", len(rows), measured.samples)
    shards, first = np.unique(rows >> 32, return_index=True)
    parts = np.split(rows & 0xFFFFFFFF, first[1:])
    return tuple(ShardWork(measured.tasks[shard], part) for shard, part in zip(shards, parts, strict=False))


def judge(
    work: Sequence[ShardWork],
    settings: Settings,
    journals: Journals,
    pool: Pool,
    engine: Engine,
    progress: Progress | None = None,
) -> Judged:
    """Measure and check what was written, and choose."""
    table, again = caption_table(work, settings, journals)
    names = table.column_names
    measured = measure_captions(
        table, pool, settings.checks, settings.scorer, engine, pool.cache / f"{CAPTIONS}/{MEASURES}", progress
    )
    try:
        checked = run_checks(measured, settings.checks).select(names)
    except ValueError as error:  # a user's own check that breaks its contract
        raise WorkError(str(error)) from error
    mixed = mix(checked, settings.mix, settings.samples_per_image, settings.seed)
    return Judged(tuple(work), mixed, again)


def write(
    engine: Engine, measured: Measured, judged: Judged, out: Folder, progress: Progress | None = None
) -> list[RecaptionedShard]:
    """Write captions.parquet and all shards."""
    digests = {report.shard: report.digest for report in measured.reports}
    remove_others(out, list(out_names([task.shard.name for task in measured.tasks]).values()))
    written = []
    for shard in write_recaptioned(engine, measured.tasks, judged.work, judged.captions, out, digests):
        written.append(shard)
        if progress:
            progress("write", len(written), len(measured.tasks))
    return sorted(written, key=lambda shard: shard.name)


def make_manifest(
    pool: Pool,
    settings: Settings,
    measured: Measured,
    judged: Judged,
    shards: Sequence[RecaptionedShard],
    asked: Asked,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The record of a run; checks that no sample was lost."""
    written = sum(shard.samples for shard in shards)
    if written != measured.samples:
        raise WorkError(
            f"counts do not add up: {measured.samples} measured, {written} written; the pool changed during the run, "
            "so run the command again"
        )
    spent = asked.seconds
    return {
        "curate": __version__,
        "pool": {"url": pool.folder.url, "cache": pool.cache.url, "shards": len(pool.shards),
                 "samples": measured.samples},
        "settings": settings.as_dict(),
        "counts": counts(judged, settings.samples_per_image, measured.samples),
        "variety": variety(judged.captions),
        "shards": [asdict(shard) for shard in shards],
        "run": {
            "asked": asked.asked,
            "answered_before": asked.answered_before,
            "failed": asked.failed,
            "captions_per_second": round(asked.asked / spent, 2) if asked.asked and spent else None,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
        },
        "measure": measured.as_dict(),
        "versions": {"python": platform.python_version()},
    }  # fmt: skip


def counts(judged: Judged, samples: int, pool_samples: int) -> dict[str, Any]:
    """What became of the candidates and of their captions."""
    table = judged.captions
    own = table.filter(pc.less(table["number"], 0))
    written = table.filter(pc.greater_equal(table["number"], 0))
    there = written.filter(written["caption"].is_valid())
    chosen = written.filter(written["chosen"])
    taken = np.array(table["chosen"].to_numpy(zero_copy_only=False), bool).reshape(-1, samples + 1)
    text = np.array(table["text"].to_numpy(zero_copy_only=False), bool).reshape(-1, samples + 1)
    cost = pc.sum(written["cost"]).as_py()
    return {
        "samples": pool_samples,
        "candidates": len(own),
        "requests": len(written),
        "written": len(there),
        "failed": _told(written["error"]),
        "ask_again": judged.ask_again,
        "refused": _told(written["check"]),
        "passed": int(pc.sum(there["check"].is_null()).as_py() or 0),
        "chosen": {"original": int(pc.sum(own["chosen"]).as_py() or 0), "written": len(chosen)},
        "replaced": int(text[:, 1:].any(axis=1).sum()),
        "beside": int((text[:, 0] & taken[:, 1:].any(axis=1)).sum()),
        "kept": _told(own["reason"]),
        "tokens": {"in": pc.sum(written["tokens_in"]).as_py() or 0, "out": pc.sum(written["tokens_out"]).as_py() or 0},
        "cost": None if cost is None else round(cost, 6),
    }


def variety(captions: pa.Table) -> dict[str, Any]:
    """How varied the candidates' own captions are as a set, and those written for them."""
    own = pc.less(captions["number"], 0)
    return {
        "original": caption_statistics(captions["caption"].filter(own)),
        "written": caption_statistics(captions["caption"].filter(pc.invert(own))),
    }


def _told(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each text comes, most first."""
    counted = Counter(text for text in column.to_pylist() if text is not None)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def finish(pool: Pool, out: Folder, manifest: dict[str, Any], tasks: Sequence[ShardTask], judged: Judged) -> None:
    """Write the report and then the manifest, whose presence says that the dataset is whole."""
    from curate.report.recaption import write_recaption_report

    shards = [shard.task.shard.name for shard in judged.work for _ in shard.rows]
    rows = np.concatenate([np.zeros(0, np.int64), *(shard.rows for shard in judged.work)])
    places = pa.table({"shard": pa.array(shards, pa.string()), "row": rows})
    write_recaption_report(out, manifest, pool, tasks, places, judged.captions)
    out.write_json(MANIFEST, manifest)
