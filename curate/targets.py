"""Target sets: images that a pool is compared with, such as evaluation sets, given as a pool, a table or an array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import RequestError
from curate.features.contract import Feature, GlobalFeature
from curate.hashing import file_sha256
from curate.measure import read_features
from curate.pool import open_pool

if TYPE_CHECKING:
    from curate.engines import Engine

ITEM = "item"


@dataclass(frozen=True)
class Target:
    """A target set. `rows` has `item`, what each is called, and those of the columns that are known of it."""

    digest: str
    rows: pa.Table


def read_target(engine: Engine, source: str, features: Sequence[Feature], columns: Sequence[str], field: str) -> Target:
    """Read a target set: a folder or URL of shards, a `.parquet` with some of the columns, or a `.npy` of embeddings.

    A pool is measured with the very `features` that the columns are read from, into its own cache, where it lacks
    them; a sample whose caption is missing counts, as those of an evaluation set do.

    Raises:
        RequestError: it cannot be read, or has none of the columns; names the `field`.
    """
    if source.endswith((".npy", ".parquet")):
        if not Path(source).is_file():
            raise RequestError(f"{field}: no file {source!r}")
        read = _of_array if source.endswith(".npy") else _of_table
        return Target(file_sha256(source), read(source, features, columns, field))
    return _of_pool(engine, source, features, columns)


def vector_columns(features: Sequence[Feature]) -> list[str]:
    """The columns that hold an embedding."""
    fields = [field for feature in features for field in feature.arrow_schema()]
    return [field.name for field in fields if pa.types.is_nested(field.type)]


def _of_pool(engine: Engine, source: str, features: Sequence[Feature], columns: Sequence[str]) -> Target:
    from curate.curation import measure
    from curate.recipe import Recipe

    plain = [feature for feature in features if not isinstance(feature, GlobalFeature)]
    known = [column for column in columns if any(column in feature.columns() for feature in plain)]
    measured = measure(open_pool(source), Recipe(source, "", tuple(plain), ()), engine)
    parts = []
    for task in measured.tasks:
        rows = read_features(task, ["key", *known])
        names = pa.array([f"{_short(source)}/{key}" for key in rows["key"].to_pylist()], pa.string())
        parts.append(rows.select(known).append_column(ITEM, names))
    return Target(measured.fingerprint, pa.concat_tables(parts))


def _of_array(source: str, features: Sequence[Feature], columns: Sequence[str], field: str) -> pa.Table:
    vectors = [name for name in vector_columns(features) if name in columns]
    try:
        values = np.load(source, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RequestError(f"{field}: {source} is no .npy of plain numbers") from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind != "f":
        raise RequestError(f"{field}: {source} is no array of embeddings, one a row")
    if not vectors:
        raise RequestError(f"{field}: {source} holds embeddings, and what reads it compares none")
    flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
    return pa.table(
        {vectors[0]: pa.FixedSizeListArray.from_arrays(flat, values.shape[1]), ITEM: _numbered(source, len(values))}
    )


def _of_table(source: str, features: Sequence[Feature], columns: Sequence[str], field: str) -> pa.Table:
    try:
        names = pq.read_schema(source).names
        known = [column for column in columns if column in names]
        called = next((name for name in (ITEM, "key", "uid") if name in names), None)
        rows = pq.read_table(source, columns=[*known, *([called] if called else [])])
    except (OSError, pa.ArrowInvalid) as error:
        raise RequestError(f"{field}: {source} is no Parquet file") from error
    if not known:
        raise RequestError(f"{field}: {source} has none of the columns {', '.join(columns)}")
    types = {f.name: f.type for feature in features for f in feature.arrow_schema()}
    for name in known:
        if pa.types.is_nested(types[name]) != pa.types.is_nested(rows.schema.field(name).type):
            raise RequestError(f"{field}: {source}: column {name} is {rows.schema.field(name).type}")
    if called is None:
        return rows.append_column(ITEM, _numbered(source, len(rows)))
    items = [f"{_short(source)}/{name}" for name in rows[called].cast(pa.string()).to_pylist()]
    return rows.select(known).append_column(ITEM, pa.array(items, pa.string()))


def _numbered(source: str, count: int) -> pa.Array:
    return pa.array([f"{_short(source)}/{n}" for n in range(count)], pa.string())


def _short(source: str) -> str:
    """The last part of a path, or two of them where that is only `train` or `test`.

    >>> _short("/data/wds_cifar10/test/")
    'wds_cifar10/test'
    """
    parts = [part for part in source.rstrip("/").split("/") if part]
    return "/".join(parts[-2:] if parts[-1] in ("train", "test", "val", "valid", "validation") else parts[-1:])
