"""Where each sample lies in its shard, and what it is called: every pass measures this."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import pyarrow as pa

from curate.features.batch import Batch
from curate.features.contract import Feature
from curate.shards import Sample


class Index(Feature):
    """`uid`, `key`, the byte range of the sample's tar members, and of its image."""

    name: ClassVar = "index"
    version: ClassVar = 1
    needs: ClassVar = ("bytes",)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema(
            [
                pa.field("uid", pa.string(), nullable=False),
                pa.field("key", pa.string(), nullable=False),
                pa.field("offset", pa.int64(), nullable=False),
                pa.field("length", pa.int64(), nullable=False),
                pa.field("image_offset", pa.int64()),
                pa.field("image_size", pa.int64()),
            ]
        )

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        samples = batch.samples
        uids = [uid(batch.shard, s, d) for s, d in zip(samples, batch.digests, strict=True)]
        return {
            "uid": pa.array(uids, pa.string()),
            "key": pa.array([s.key for s in samples], pa.string()),
            "offset": pa.array([s.offset for s in samples], pa.int64()),
            "length": pa.array([s.length for s in samples], pa.int64()),
            "image_offset": pa.array([s.image_offset if s.image is not None else None for s in samples], pa.int64()),
            "image_size": pa.array([len(s.image) if s.image is not None else None for s in samples], pa.int64()),
        }


def uid(shard: str, sample: Sample, image_sha256: bytes | None) -> str:
    """The pool's own uid, or 32 hex digits of SHA-256 over key, caption and image.

    The key is part of it so that a copy of a sample is another sample; where there is no image to tell
    samples apart, the shard and the place in it are.
    """
    if sample.uid:
        return sample.uid
    content = image_sha256 or f"{shard}@{sample.offset}".encode()
    parts = [sample.key.encode(), (sample.text or "").encode("utf-8", "surrogatepass"), content]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
