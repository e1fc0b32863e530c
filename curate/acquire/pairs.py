"""The table of image-text pairs found on pages: its schema, a pair's uid, atomic writing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.storage import Folder

SCHEMA = pa.schema(
    [
        pa.field("uid", pa.string(), False),  # 32 hex digits, from url and caption
        pa.field("url", pa.string(), False),  # of the image: absolute, http or https, ASCII
        pa.field("caption", pa.string(), False),  # white space folded, at most MAX_CAPTION characters
        pa.field("caption_source", pa.string(), False),  # alt | figcaption
        pa.field("page_url", pa.string(), False),
        pa.field("page_language", pa.string()),  # the page's own claim (html lang), lower case
        pa.field("width_attribute", pa.int32()),  # pixels as the page says, not as the image is
        pa.field("height_attribute", pa.int32()),
    ]
)
_ROW_GROUP = 20_000  # pairs held in memory before they go to the file


def pair_uid(url: str, caption: str) -> str:
    """The name of a pair that has none: the same url and caption always give the same 32 hex digits."""
    # The length first, so that no other split of the two strings gives the same input.
    text = f"{len(url)}:{url}{caption}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Pair:
    """One image with one text, as a page shows it. See SCHEMA for the fields."""

    url: str
    caption: str
    caption_source: str
    page_url: str
    page_language: str | None = None
    width_attribute: int | None = None
    height_attribute: int | None = None

    def row(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {"uid": pair_uid(self.url, self.caption), **fields}


class PairWriter:
    """Streams pairs into a Parquet file that appears under its name only when it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> PairWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._temporary, SCHEMA, compression="zstd")
        return self

    def add(self, pairs: Iterable[Pair]) -> None:
        self._rows.extend(pair.row() for pair in pairs)
        if len(self._rows) >= _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            self._writer.close()
            if kind is None:
                self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes the content as indented JSON; the file is either the old or the new one, never half."""
    Folder(str(path.parent)).write_json(path.name, content)
