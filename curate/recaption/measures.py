"""What is measured of captions, so that checks and the mix can judge them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from curate.engines import Engine
from curate.features.clip import Clip
from curate.pool import Pool
from curate.recaption.contract import Check
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
        "phrase": pa.string(),  # of the things that the caption names, the one that fits the image least
        "phrase_score": pa.float32(),  # how well: in standard deviations above its mean over other images
        "objects": pa.list_(pa.string()),  # what a detector saw in the image
    }
)
"""The columns that checks may read besides those of `CAPTIONS`; null where they cannot be told."""
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
        work: where a shard's measures lie until the run is done, so that a run goes on where it was killed.

    Returns:
        The same rows in the same order: `CAPTIONS` with `score` filled in, of originals too, and the columns of
        `MEASURES` that the checks read.

    Raises:
        RequestError: the scorer cannot be had, or the pool has no images.
    """
    raise NotImplementedError
