"""What is measured of captions, so that checks and the mix can judge them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engines import Engine
from curate.errors import RequestError
from curate.extras import function_at
from curate.features.clip import Clip
from curate.features.contract import Feature
from curate.features.index import Index
from curate.measure import ShardTask, known_shards, measure_shards, shard_tasks
from curate.pool import Pool
from curate.recaption.contract import Check
from curate.recaption.pieces import MEASURES, Piece, measure_piece, named
from curate.recaption.scores import common_things
from curate.storage import Folder

__all__ = ["MEASURES", "measure_captions"]
Progress = Callable[[str, int, int], None]


def measure_captions(
    captions: pa.Table,
    pool: Pool,
    checks: Sequence[Check],
    scorer: Clip | None,
    engine: Engine,
    work: Folder,
    progress: Progress | None = None,
) -> pa.Table:
    """Measure what checks read of captions, shard by shard on the engine's workers.

    With a scorer, the images of shards that have captions are embedded as the feature `clip` does it, into the
    pool's cache or from there, each once; the captions of a shard are then scored without reading an image.

    Args:
        captions: `CAPTIONS`, originals too (`number` -1), in any order.
        pool: where their samples lie.
        checks: what they read is measured.
        scorer: what scores them; None leaves `score`, `original_score`, `phrase` and `phrase_score` null.
        work: where a shard's measures are kept, so that a run goes on where it was killed.

    Returns:
        The same rows in the same order: `CAPTIONS` with `score` filled in, of originals too, and the columns of
        `MEASURES` that the checks read.

    Raises:
        RequestError: the scorer or a detector cannot be had, or a check reads a column that there is not.
        WorkError: a detector fails.
    """
    wanted = _wanted(captions, checks)
    if not len(captions):
        return _with(captions, pa.table({name: pa.nulls(0, MEASURES.field(name).type) for name in wanted}), wanted)
    rows, pieces = _pieces(captions, pool, checks, wanted, scorer, engine, work, progress)
    here = scorer is not None and engine.gpu_here()  # one process feeds the GPU
    done = (measure_piece(piece) for piece in pieces) if here else engine.map(measure_piece, pieces)
    for number, _ in enumerate(done, 1):
        if progress:
            progress("judge", number, len(pieces))
    parts = []
    for piece in pieces:
        with work.parquet(piece.file) as file:
            parts.append(file.read())
    back = np.empty(len(captions), np.int64)
    back[np.concatenate(rows)] = np.arange(len(captions))
    return _with(captions, pa.concat_tables(parts).take(pa.array(back)).combine_chunks(), wanted)


def _wanted(captions: pa.Table, checks: Sequence[Check]) -> list[str]:
    """The columns of `MEASURES` that checks read, and those that they are made of."""
    read = {column: check.name for check in checks for column in check.reads}
    if unknown := sorted(read.keys() - set(MEASURES.names) - set(captions.column_names)):
        raise RequestError(f"checks: {read[unknown[0]]} reads {unknown[0]!r}, which is not measured of captions")
    return [name for name in MEASURES.names if name in read]


def _with(captions: pa.Table, measured: pa.Table, wanted: Sequence[str]) -> pa.Table:
    """Put the measures beside the captions, and what is known of each sample's own caption."""
    if "score" in measured.column_names:
        captions = captions.set_column(captions.column_names.index("score"), "score", measured["score"])
    own = captions.filter(pc.less(captions["number"], 0))
    place = pc.index_in(captions["uid"], value_set=own["uid"].combine_chunks())
    for name in wanted:
        if name in ("original", "original_score"):
            values = own["caption" if name == "original" else "score"].take(place)
        else:
            values = measured[name]
        captions = captions.append_column(MEASURES.field(name), values.cast(MEASURES.field(name).type))
    return captions


def _pieces(
    captions: pa.Table,
    pool: Pool,
    checks: Sequence[Check],
    wanted: Sequence[str],
    scorer: Clip | None,
    engine: Engine,
    work: Folder,
    progress: Progress | None,
) -> tuple[list[np.ndarray], list[Piece]]:
    """The rows of each shard, and what is to be done with them; images are embedded here, if any must be."""
    shards = captions["shard"].combine_chunks().dictionary_encode()
    numbers = shards.indices.to_numpy()
    rows = np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))[:-1])
    of_shard = dict(zip(shards.dictionary.to_pylist(), rows, strict=True))
    columns = tuple(name for name in wanted if not name.startswith("original"))
    detector = _detector(checks)
    tasks = _tasks(pool, of_shard, scorer, engine, progress)
    common: tuple[str, ...] = ()
    if scorer and "phrase_score" in columns:
        written = captions["caption"].filter(pc.greater_equal(captions["number"], 0)).drop_null()
        common = tuple(common_things(written.to_pylist()))
    pieces = []
    for shard, places in of_shard.items():
        part = captions.select(["uid", "number", "caption"]).take(pa.array(places)).combine_chunks()
        pieces.append(named(Piece(tasks[shard], part, columns, scorer, detector, common, work)))
    return list(of_shard.values()), pieces


def _tasks(
    pool: Pool, shards: Collection[str], scorer: Clip | None, engine: Engine, progress: Progress | None
) -> dict[str, ShardTask]:
    """Tasks of the shards, with what the cache lacked measured."""
    features: list[Feature] = [Index(), *([scorer] if scorer else [])]
    some = replace(pool, shards=tuple(shard for shard in pool.shards if shard.name in shards))
    tasks = shard_tasks(some, features)
    known = known_shards(tasks)
    for _ in measure_shards([task for task in tasks if task.shard.name not in known], engine, progress):
        pass
    return {task.shard.name: task for task in tasks}


def _detector(checks: Sequence[Check]) -> str | None:
    """The detector that a check names, if one does; it can be imported."""
    named = sorted({path for check in checks if (path := getattr(check, "detector", None))})
    if len(named) > 1:
        raise RequestError(f"checks: two detectors, {named[0]} and {named[1]}; one run has one")
    if named:
        function_at(named[0], "checks: detector")
    return named[0] if named else None
