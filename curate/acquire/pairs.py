"""The table of image-text pairs found on pages: its schema, a pair's uid, atomic writing."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.storage import Folder

SCHEMA = pa.schema(
    [
        pa.field("uid", pa.string(), False),  # 32 hex digits, from url and caption
        pa.field("url", pa.string(), False),  # of the image: absolute, http or https, ASCII
        pa.field("caption", pa.string(), False),  # white space folded, at most MAX_CAPTION characters
        pa.field("caption_source", pa.string(), False),  # alt | figcaption | og_alt | og_title | og_description | title
        pa.field("page_url", pa.string(), False),
        pa.field("page_language", pa.string()),  # the page's own claim (html lang), lower case
        pa.field("page_licence", pa.string()),  # absolute address of the licence that the page links
        pa.field("width_attribute", pa.int32()),  # pixels as the page says, not as the image is
        pa.field("height_attribute", pa.int32()),
    ]
)
_REPEATED = ["caption_source", "page_url", "page_language", "page_licence", "width_attribute", "height_attribute"]
_ROW_GROUP = 20_000  # pairs held in memory before they go to the file


def pair_uid(url: str, caption: str) -> str:
    """The name of a pair that has none: the same url and caption always give the same 32 hex digits."""
    # The length first, so that no other split of the two strings gives the same input.
    text = f"{len(url)}:{url}{caption}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


class Pair(NamedTuple):
    """One image with one text, as a page shows it. See SCHEMA for the fields."""

    url: str
    caption: str
    caption_source: str
    page_url: str
    page_language: str | None = None
    page_licence: str | None = None
    width_attribute: int | None = None
    height_attribute: int | None = None

    def row(self) -> dict[str, Any]:
        return {"uid": pair_uid(self.url, self.caption), **self._asdict()}


class PairWriter:
    """Streams pairs into a Parquet file that appears under its name only when it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self.rows = self.repeated = 0  # written, and images that came again on their page

    def __enter__(self) -> PairWriter:
        from curate.acquire.pairs_batch import PairBatch  # numba, which nothing but reading pages needs

        self.batch = PairBatch()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._temporary, SCHEMA, compression="zstd", use_dictionary=_REPEATED)
        return self

    def add(self, pairs: Iterable[Pair]) -> None:
        """The pairs of one page, beside those that were put into `batch`."""
        self.batch.add_pairs(pairs)
        if self.batch.count >= _ROW_GROUP:
            self._write()

    def add_table(self, table: pa.Table) -> None:
        """Rows that were made before; no others may wait to be written."""
        self._writer.write_table(table, _ROW_GROUP)

    def _write(self) -> None:
        columns, again = self.batch.columns()
        table = pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)
        self.rows, self.repeated = self.rows + len(table), self.repeated + again
        self._writer.write_table(table, _ROW_GROUP)
        self.batch.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.batch.count:
                self._write()
            self._writer.close()
            if kind is None:
                self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)


def merge_pairs(parts: Sequence[Path], out: Path, distinct: str | None = None) -> tuple[int, int]:
    """Writes the rows of some files of pairs to one, in their order; how many rows, and how many were left out.

    Args:
        distinct: a column, `url` or `uid`: of rows with equal values in it, only the first stays. Worked out by
            DuckDB, which takes the disk where the memory does not do.
    """
    rows = kept = 0
    chosen = _first_rows(parts, distinct) if distinct else None
    with PairWriter(out) as writer:
        for part in parts:
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(_ROW_GROUP):
                    table = pa.Table.from_batches([batch]).cast(SCHEMA)
                    start, rows = rows, rows + len(table)
                    if chosen is not None:
                        low, high = np.searchsorted(chosen, (start, rows))
                        table = table.take(pa.array(chosen[low:high] - start))
                    kept += len(table)
                    if len(table):
                        writer.add_table(table)
    return kept, rows - kept


def _first_rows(parts: Sequence[Path], column: str) -> np.ndarray:
    """The places of the first row of each value, in order: int64 (values,). Rows are numbered through all parts."""
    import duckdb

    sizes = [pq.read_metadata(part).num_rows for part in parts]
    starts = dict(zip(map(str, parts), np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist(), strict=True))
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect(config={"temp_directory": scratch}) as connection:
        connection.execute("CREATE TABLE starts (filename VARCHAR, start BIGINT)")
        connection.executemany("INSERT INTO starts VALUES (?, ?)", [*starts.items()])
        found = connection.execute(
            "SELECT min(file_row_number + start) AS place "
            "FROM read_parquet(?, filename = true, file_row_number = true) "
            f'JOIN starts USING (filename) GROUP BY "{column}" ORDER BY place',
            [list(starts)],
        )
        return found.fetchnumpy()["place"].astype(np.int64)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes the content as indented JSON; the file is either the old or the new one, never half."""
    Folder(str(path.parent)).write_json(path.name, content)
