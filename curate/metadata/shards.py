"""A pool that is metadata alone: each `<id>.parquet` is a shard, its rows are samples without an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curate.features.batch import Batch
from curate.hashing import file_digest
from curate.metadata.npz import NpzFile, npz_digest
from curate.shards import MAX_TEXT_BYTES, Sample
from curate.storage import Folder

ROWS = 1024
"""Rows measured together."""
TEXT = "text"
SIZES = {"width": "original_width", "height": "original_height"}
SCORES = {"b32": "clip_b32_similarity_score", "l14": "clip_l14_similarity_score"}
COLUMNS = ("uid", "key", TEXT, *SIZES.values(), *SCORES.values(), "sha256")


@dataclass
class MetadataBatch(Batch):
    """Consecutive rows of a metadata file, and where their embeddings are."""

    rows: pa.Table | None = None
    start: int = 0
    """The place of the first row in the file."""
    npz: NpzFile | None = None

    def one(self, place: int) -> MetadataBatch:
        assert self.rows is not None
        sample, row = self.samples[place], self.rows.slice(place, 1)
        return MetadataBatch(self.shard, [sample], rows=row, start=self.start + place, npz=self.npz)

    @cached_property
    def digests(self) -> list[bytes | None]:
        return [None] * len(self)


def is_metadata(shard: str) -> bool:
    """Whether a shard's name is that of a metadata file."""
    return shard.endswith(".parquet")


def npz_name(shard: str) -> str:
    return shard.removesuffix(".parquet") + ".npz"


def read_metadata(folder: Folder, shard: str, path: str) -> Iterator[MetadataBatch]:
    """Yield the rows of a metadata file in order, a row group at a time in memory.

    `path` is a local copy of the parquet. Damage never ends the run: what cannot be read is one sample whose
    `error` says from which row on.
    """
    npz, start = None, 0
    try:
        file = pq.ParquetFile(path)
        npz = NpzFile(folder, npz_name(shard), file.metadata.num_rows)
        present = [name for name in COLUMNS if name in file.schema_arrow.names]
        for batch in file.iter_batches(ROWS, columns=present):
            table = pa.Table.from_batches([batch])
            yield MetadataBatch(shard, _samples(table, start), rows=table, start=start, npz=npz)
            start += len(table)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        said = f"unreadable metadata from row {start} on: {' '.join(str(error).split())}"[:300]
        lost = pa.table({name: pa.nulls(1) for name in COLUMNS})
        yield MetadataBatch(shard, [Sample("", start, 0, error=said)], rows=lost, start=start)
    finally:
        if npz is not None:
            npz.close()


def metadata_digest(folder: Folder, shard: str, path: str) -> str:
    """A digest of a metadata file and of the embeddings beside it, of which only the directory is read."""
    return xxhash.xxh3_128_hexdigest(f"{file_digest(path)} {npz_digest(folder, npz_name(shard))}".encode())


def caption_at(folder: Folder, shard: str, row: int) -> str | None:
    """The text of one row, of which only the row group is read; None if it cannot be."""
    try:
        with folder.local_copy(shard) as path:
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if row < rows:
                    return _text(file.read_row_group(group, columns=[TEXT])[TEXT][row].as_py())
                row -= rows
    except (OSError, pa.ArrowException, KeyError):
        pass
    return None


def float_column(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Numbers as float64, without a change of value; nulls become NaN."""
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _samples(table: pa.Table, start: int) -> list[Sample]:
    names = table.column_names
    texts = table[TEXT].to_pylist() if TEXT in names else [None] * len(table)
    uids = table["uid"].to_pylist() if "uid" in names else [None] * len(table)
    keys = table["key"].to_pylist() if "key" in names else [None] * len(table)
    return [
        Sample(str(key) if key is not None else f"{start + n:08d}", start + n, 0, text=_text(text), uid=uid)
        for n, (key, text, uid) in enumerate(zip(keys, texts, uids, strict=True))
    ]


def _text(value: object) -> str | None:
    return value[:MAX_TEXT_BYTES] if isinstance(value, str) else None


def looks_like_metadata(folder: Folder, shard: str) -> bool:
    """Whether a Parquet file has DataComp's columns: a uid and a text for each row."""
    with folder.local_copy(shard) as path:
        return {"uid", TEXT} <= set(pq.read_schema(path).names)
