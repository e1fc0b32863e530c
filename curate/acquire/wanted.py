"""The pairs that a download is asked for, as a table that img2dataset's parts take."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.acquire.header import EXPECTED, HASHES
from curate.acquire.pairs import pair_uid
from curate.errors import RequestError
from curate.storage import Folder

# Columns of `curate crawl` that go along into the pool, if there.
FROM_CRAWL = ("page_url", "caption_source", "page_language", "page_licence", "width_attribute", "height_attribute")
_ROWS = 65_536  # digested at a time
_TAKEN = (
    *("uid", "url", "caption", "key", "status", "error_message", "width", "height", "original_width"),
    *("original_height", "exif", "jpg", "txt", "json", *HASHES, EXPECTED),
)


def load_pairs(
    pairs: str, url_column: str, caption_column: str, more: Sequence[str]
) -> tuple[pa.Table, int, list[str]]:
    """The pairs, each uid once: uid, columns that go along, caption, url, and EXPECTED if they name hashes.

    Args:
        pairs: a Parquet file, as a path or a URL of a store.
        more: further columns that go along.

    Returns:
        The table, how many rows were repeated, and the names of the columns that go along.

    Raises RequestError if the file cannot be read, or lacks a column.
    """
    head, slash, name = pairs.rpartition("/")
    folder = Folder(head if slash and head else ("/" if slash else str(Path.cwd())))
    try:
        with folder.parquet(name) as file:
            names = file.schema_arrow.names
            _check(pairs, names, (url_column, caption_column, *more), more)
            extra = [*(c for c in FROM_CRAWL if c in names), *(c for c in more if c not in FROM_CRAWL)]
            extra = [c for c in dict.fromkeys(extra) if c not in (url_column, caption_column)]
            also = [c for c in ("uid", *HASHES) if c in names and c not in (url_column, caption_column)]
            table = file.read(list(dict.fromkeys([*also, *extra, url_column, caption_column])))
    except (OSError, pa.ArrowException) as error:
        raise RequestError(f"{pairs}: cannot be read as a Parquet file ({error})") from error
    urls, captions = (pc.fill_null(table[c].cast(pa.string()), "") for c in (url_column, caption_column))
    uids = _uids(table, urls, captions)
    columns: dict[str, Any] = {"uid": uids}
    columns |= {c: plain(table[c]) for c in extra}
    columns |= {"caption": captions, "url": urls}
    if expected := _expected(table):
        columns[EXPECTED] = expected[0]
    del table  # for its memory
    once = _first_rows(pa.table(columns))
    return once, len(uids) - len(once), extra


def _check(pairs: str, names: list[str], needed: Sequence[str], more: Sequence[str]) -> None:
    for column in needed:
        if column not in names:
            raise RequestError(f"{pairs}: has no column {column!r}; it has {', '.join(names)}")
    if taken := sorted({*more} & {*_TAKEN}):
        raise RequestError(f"columns: {taken[0]!r} is a column that the pool has of its own")


def _uids(table: pa.Table, urls: pa.ChunkedArray, captions: pa.ChunkedArray) -> pa.ChunkedArray:
    """The uids that the rows have, and made ones for those that have none."""
    if "uid" in table.column_names:
        given = pc.fill_null(plain(table["uid"]).cast(pa.string()), "")
    else:
        given = pa.chunked_array([pa.repeat(pa.scalar("", pa.string()), len(table))])
    missing = pc.equal(given, "")
    if not pc.any(missing).as_py():
        return given
    texts = zip(urls.filter(missing).to_pylist(), captions.filter(missing).to_pylist(), strict=True)
    made = pa.array([pair_uid(*pair) for pair in texts], pa.string())
    return pa.chunked_array([pc.replace_with_mask(given.combine_chunks(), missing.combine_chunks(), made)])


def _first_rows(table: pa.Table) -> pa.Table:
    """The first row of each uid, in order."""
    rows = pa.table({"uid": table["uid"], "row": pa.array(np.arange(len(table)))})
    first = rows.group_by("uid").aggregate([("row", "min")])["row_min"].to_numpy()
    if len(first) == len(table):
        return table
    kept = np.zeros(len(table), bool)
    kept[first] = True
    return table.filter(pa.array(kept))


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as JSON can hold it: numbers and bools as they are, NaN and infinity as null, all else as text."""
    kind = column.type
    if pa.types.is_floating(kind):
        column = column.cast(pa.float64())
        return pc.if_else(pc.is_finite(column), column, pa.scalar(None, pa.float64()))
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or kind == pa.string():
        return column
    try:
        return column.cast(pa.string())
    except pa.ArrowException:  # lists and the like
        texts = [None if value is None else json.dumps(value, default=str) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])


def _expected(table: pa.Table) -> list[pa.ChunkedArray]:
    """The hash that each row names as "sha256:9f86…", null where it names none; nothing if there is no such column."""
    found = []
    for name in HASHES:
        if name in table.column_names:
            digest = pc.utf8_trim_whitespace(table[name].cast(pa.string()))
            digest = pc.if_else(pc.equal(digest, ""), pa.scalar(None, pa.string()), digest)
            found.append(pc.binary_join_element_wise(pa.scalar(name), digest, ":"))
    return [pc.coalesce(*found)] if found else []


def table_digest(table: pa.Table) -> str:
    """SHA-256 of the rows, in hex; however they are chunked."""
    digest = hashlib.sha256()
    for start in range(0, len(table), _ROWS):
        digest.update(json.dumps(table.slice(start, _ROWS).to_pydict(), sort_keys=True).encode())
    return digest.hexdigest()
