"""The captions of one shard: what a worker measures of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate.errors import WorkError
from curate.extras import function_at, function_digest
from curate.features.caption import Caption
from curate.features.clip import Clip
from curate.features.language import Language
from curate.hashing import facts_hash
from curate.measure import ShardTask, read_features
from curate.recaption.rowwise import batch_of
from curate.recaption.scores import cosines, embed_texts, thing_scores
from curate.shards import read_samples
from curate.storage import Folder

MEASURES = pa.schema(
    {
        "original": pa.string(),  # the sample's own caption
        "original_score": pa.float32(),  # its cosine with the image
        "caption_length": pa.int32(),  # as the features `caption` and `language` have them, from here
        "caption_words": pa.int32(),
        "caption_alpha": pa.float32(),
        "language": pa.string(),
        "language_probability": pa.float32(),  # to here
        "phrase": pa.string(),  # of the things that a written caption names, the one that fits the image least
        "phrase_score": pa.float32(),  # how well: see `curate.recaption.scores.thing_scores`
        "objects": pa.list_(pa.string()),  # what a detector saw in the image
    }
)
"""The columns that checks may read besides those of `CAPTIONS`; null where they cannot be told."""
VERSION = 1
"""Raised when the code changes what it measures."""
_TEXT = (Caption(), Language())
_IMAGES = 64  # given to a detector at once
_SURE = 0.5  # probability of a language


@dataclass(frozen=True)
class Piece:
    """The captions of one shard, and all that a worker needs to measure them."""

    task: ShardTask
    captions: pa.Table
    """`uid`, `number` and `caption`."""
    columns: tuple[str, ...]
    scorer: Clip | None
    detector: str | None
    common: tuple[str, ...]
    work: Folder
    file: str = ""


def named(piece: Piece) -> Piece:
    """With a file whose name changes when anything does that could change what is measured."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, piece.captions.schema) as stream:
        stream.write_table(piece.captions)
    facts: dict[str, Any] = {
        "version": VERSION,
        "shard": [piece.task.shard.name, piece.task.shard.stamp],
        "captions": xxhash.xxh3_128_hexdigest(sink.getvalue()),
        "columns": piece.columns,
        "scorer": piece.scorer.folder if piece.scorer else None,
        "text": [feature.folder for feature in _TEXT],
        "common": piece.common,
        "detector": [piece.detector, function_digest(piece.detector, "detector")] if piece.detector else None,
    }
    return replace(piece, file=f"{piece.task.shard.name.removesuffix('.tar')}-{facts_hash(facts)}.parquet")


def measure_piece(piece: Piece) -> str:
    """Measure the captions of a shard, unless it was done before."""
    if not piece.work.exists(piece.file):
        columns = dict(_measured(piece))
        piece.work.write_parquet(piece.file, pa.table(columns))
    return piece.file


def _measured(piece: Piece) -> Iterator[tuple[str, Any]]:
    texts = piece.captions["caption"].to_pylist()
    batch = batch_of(texts)
    for feature in _TEXT:
        if set(feature.columns()) & set(piece.columns):
            found = feature.measure(batch)
            yield from ((name, values) for name, values in found.items() if name in piece.columns)
    yield from _scored(piece, texts)
    if "objects" in piece.columns:
        yield "objects", _detected(piece)


def _scored(piece: Piece, texts: list[str | None]) -> Iterator[tuple[str, Any]]:
    """`score`, and `phrase` and `phrase_score` of written captions if they are wanted."""
    if piece.scorer is None:
        yield "score", pa.nulls(len(texts), pa.float32())
        for name in {"phrase", "phrase_score"} & set(piece.columns):
            yield name, pa.nulls(len(texts), MEASURES.field(name).type)
        return
    vectors, known = _vectors(piece)
    known &= np.array([text is not None for text in texts], bool)
    score = cosines(vectors, embed_texts(piece.scorer, [text or "" for text in texts]), known)
    yield "score", score
    if {"phrase", "phrase_score"} & set(piece.columns):
        places = np.flatnonzero(known & (piece.captions["number"].to_numpy() >= 0) & _may_be_english(texts))
        some = [texts[place] or "" for place in places]
        whole = score.take(pa.array(places)).to_numpy()
        least = np.full(len(texts), -1)
        least[places] = np.arange(len(places))
        back = pa.array(least, mask=least < 0)
        things, scores = thing_scores(piece.scorer, some, vectors[places], whole, piece.common)
        yield "phrase", things.take(back)
        yield "phrase_score", scores.take(back)


def _may_be_english(texts: list[str | None]) -> np.ndarray:
    """Which texts the tagger of things may be given, bool (n,): those not surely in another language."""
    found = Language().measure(batch_of(texts))
    sure = pc.greater_equal(found["language_probability"], pa.scalar(_SURE, pa.float32()))
    other = pc.and_(pc.not_equal(found["language"], "en"), sure).fill_null(False)
    return ~other.to_numpy(zero_copy_only=False)


def _vectors(piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    """The embedding of each caption's image, float32 (n, d), and which have one (n,)."""
    measured = read_features(piece.task, ("uid", "clip_image"))
    there = measured["clip_image"].combine_chunks().take(_places(piece, measured))
    known = there.is_valid().to_numpy(zero_copy_only=False)
    out = np.zeros((len(there), there.type.list_size), np.float32)
    values = there.drop_null().flatten().to_numpy(zero_copy_only=False)
    out[known] = values.reshape(-1, there.type.list_size)
    return out, known


def _places(piece: Piece, measured: pa.Table) -> pa.Array:
    """Each caption's sample, by its row in the shard."""
    return pc.index_in(piece.captions["uid"], value_set=measured["uid"].combine_chunks()).combine_chunks()


def _detected(piece: Piece) -> pa.Array:
    """What the detector sees in each caption's image; an image is looked at once."""
    assert piece.detector is not None
    detect = function_at(piece.detector, "checks: detector")
    place = _places(piece, read_features(piece.task, ("uid",))).to_pylist()
    wanted, seen = set(place), dict[int | None, list[str] | None]()
    with piece.task.pool.local_copy(piece.task.shard.name) as path:
        samples = ((row, s.image) for row, s in enumerate(read_samples(path)) if row in wanted and s.image is not None)
        while some := list(itertools.islice(samples, _IMAGES)):
            found = list(detect([bytes(image) for _, image in some]))
            if len(found) != len(some):
                raise WorkError(f"detector {piece.detector}: {len(found)} answers for {len(some)} images")
            seen |= {row: names for (row, _), names in zip(some, found, strict=True)}
    return pa.array([seen.get(row) for row in place], MEASURES.field("objects").type)
