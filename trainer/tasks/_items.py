"""What the tasks read: the items of a folder, whichever of three layouts it has.

| layout | item | images | fields |
| --- | --- | --- | --- |
| `test/*.tar`, WebDataset as in CLIP_benchmark and DataComp's evaluation sets | a key | `KEY.jpg` is `image`, `KEY.NAME.jpg` is `NAME` | those of `KEY.json`; `KEY.txt` is `captions`, a line each; `KEY.cls` is `label`; `KEY.NAME.txt` is `NAME` |
| `items.jsonl` with image files beside it | a line | the fields `image`, `image_0`, ... are paths inside the folder | the others |
| `*.parquet`, as MMMU and others on Hugging Face | a row | the columns `image`, `image_1`, ... of bytes, or structs of `bytes` | the others |

Items are foreign data: what is wrong with one is a `BadSampleError`, counted by its reason, and never more.
"""  # noqa: E501

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from trainer.data import map_in_order
from trainer.images import open_image
from trainer.shards import IMAGE_EXTENSIONS, MAX_MEMBER_BYTES, BadSampleError, Sample, list_shards, read_samples

JSONL = "items.jsonl"
MAX_TEXT = 10_000  # characters
MAX_LINE_BYTES = 1 << 20
MAX_ASPECT_RATIO = 200  # resizing the shorter side of a thinner image would make a huge one
_IMAGE_NAME = re.compile(r"image(_\w+)?")
T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One item: its fields as plain JSON values, and its images by name, encoded, read when asked for."""

    key: str
    fields: Mapping[str, Any]
    images: Mapping[str, Callable[[], bytes]]

    def image(self, name: str = "image") -> Image.Image:
        """The image in RGB.

        Raises:
            BadSampleError: there is none, or it is damaged, too large or too thin.
        """
        if name not in self.images:
            raise BadSampleError("no image")
        image = open_image(self.images[name]())
        if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
            raise BadSampleError("too thin an image")
        return image

    def text(self, name: str) -> str:
        """A field's text, stripped, never empty.

        Raises:
            BadSampleError: "no NAME", or it is too long.
        """
        return _text(self.fields.get(name), name)

    def texts(self, name: str) -> list[str]:
        """A field's texts, one or more: a list, a single text, or a list written as JSON or Python would.

        Raises:
            BadSampleError: "no NAME", or one of them is no text, empty or too long.
        """
        value = self.fields.get(name)
        if isinstance(value, str) and value.strip().startswith("["):
            value = _parse_list(value, name)
        if isinstance(value, (str, int, float)):
            value = [value]
        if not isinstance(value, list) or not value:
            raise BadSampleError(f"no {name}")
        return [_text(one, name) for one in value]

    def captions(self) -> list[str]:
        """The captions, one or more: `captions`, else `caption`.

        Raises:
            BadSampleError: there is none, or one of them is no text, empty or too long.
        """
        return self.texts("captions" if "captions" in self.fields else "caption")

    def numbers(self, name: str, count: int) -> list[float]:
        """A field's `count` finite numbers.

        Raises:
            BadSampleError: "no NAME".
        """
        value = self.fields.get(name)
        if not isinstance(value, list) or len(value) != count:
            raise BadSampleError(f"no {name}")
        try:
            found = [float(number) for number in value]
        except (TypeError, ValueError, OverflowError):
            found = []
        if len(found) != count or not all(abs(number) < 1e9 for number in found):
            raise BadSampleError(f"no {name}")
        return found


def _text(value: Any, name: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value) if abs(value) < 1e15 else None  # a number as an answer or an option
    if not isinstance(value, str) or not value.strip():
        raise BadSampleError(f"no {name}")
    if len(value) > MAX_TEXT:
        raise BadSampleError("text too long")
    return value.encode("utf-8", "replace").decode().strip()  # half a surrogate pair would crash a tokenizer


def _parse_list(text: str, name: str) -> Any:
    if len(text) > MAX_TEXT:
        raise BadSampleError("text too long")
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    raise BadSampleError(f"no {name}")


def prepared(
    folder: str, prepare: Callable[[Item], T], skipped: Counter[str], part: str = "test"
) -> Iterator[tuple[str, T]]:
    """The key of each item and what `prepare` makes of it, in order, made by a few threads.

    An item for which it raises BadSampleError is counted in `skipped` and left out.

    Raises:
        ValueError: the folder has no items in a known layout.
    """
    for item, done in map_in_order(partial(_or_reason, prepare), read_items(folder, skipped, part)):
        if isinstance(done, BadSampleError):
            skipped[str(done)] += 1
        else:
            yield item.key, done


def _or_reason(prepare: Callable[[Item], T], item: Item) -> T | BadSampleError:
    try:
        return prepare(item)
    except BadSampleError as bad:
        return bad


def read_items(folder: str, skipped: Counter[str], part: str = "test") -> Iterator[Item]:
    """The items of `part/*.tar`, or of the folder's `items.jsonl`, or of its `*.parquet`.

    Raises:
        ValueError: there is none of them.
    """
    fs, path = fsspec.url_to_fs(folder.rstrip("/"))
    if fs.isdir(f"{path}/{part}"):
        for shard in list_shards(f"{folder.rstrip('/')}/{part}"):
            yield from map(_of_sample, read_samples(shard, skipped))
    elif fs.isfile(f"{path}/{JSONL}"):
        yield from _of_jsonl(fs, path, skipped)
    elif files := sorted(fs.glob(f"{path}/*.parquet")):
        for file in files:
            yield from _of_parquet(fs, file, skipped)
    else:
        raise ValueError(f"task: {folder} holds no {part}/*.tar, no {JSONL} and no *.parquet")


def _of_sample(sample: Sample) -> Item:
    fields, images = dict[str, Any](), dict[str, Callable[[], bytes]]()
    for extension, content in sample.members.items():
        name, _, kind = extension.rpartition(".")
        if kind in IMAGE_EXTENSIONS:
            images.setdefault(name or "image", partial(bytes, content))
        elif kind == "cls":
            fields["label"] = content.decode("utf-8", "replace").strip()
        elif kind == "txt":
            text = content.decode("utf-8", "replace")
            fields[name or "captions"] = text if name else [line for line in text.splitlines() if line.strip()]
        elif kind == "json" and not name:
            fields = _object(content) | fields
    return Item(sample.key, fields, images)


def _of_jsonl(fs: Any, folder: str, skipped: Counter[str]) -> Iterator[Item]:
    with fs.open(f"{folder}/{JSONL}", "rb") as file:
        number = -1
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            if not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
                skipped["line too long"] += 1
                while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
            elif line.strip():
                fields = _object(line)
                names = [name for name in fields if _IMAGE_NAME.fullmatch(name)]
                images = {name: partial(_read_inside, fs, folder, fields.pop(name)) for name in names}
                key = fields.get("key", number)
                yield Item(key if isinstance(key, str) else f"{number:07d}", fields, images)


def _of_parquet(fs: Any, file: str, skipped: Counter[str]) -> Iterator[Item]:
    number = 0
    try:
        with fs.open(file, "rb") as opened:
            for batch in pq.ParquetFile(opened).iter_batches(32):
                for row in batch.to_pylist():
                    images = {name: value for name, value in row.items() if _IMAGE_NAME.fullmatch(name)}
                    contents = {n: v.get("bytes") if isinstance(v, dict) else v for n, v in images.items()}
                    found = {
                        name: partial(bytes, value) for name, value in contents.items() if isinstance(value, bytes)
                    }
                    fields = {n: v for n, v in row.items() if n not in images}
                    key = fields.get("key", fields.get("id"))
                    name = file.rsplit("/", 1)[-1].removesuffix(".parquet")
                    yield Item(key if isinstance(key, str) else f"{name}-{number:07d}", fields, found)
                    number += 1
    except (pa.ArrowException, KeyError, OverflowError, UnicodeDecodeError, OSError) as wrong:
        if isinstance(wrong, OSError) and wrong.errno is not None:
            raise  # the file system's, not the decoder's
        skipped["broken shard"] += 1


def _object(text: bytes) -> dict[str, Any]:
    """The JSON object, empty if it is none: its fields will be found missing."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_inside(fs: Any, folder: str, name: Any) -> bytes:
    """The file of that name in the folder or below it; links do not lead out of it either."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise BadSampleError("no image")
    if name.startswith(("/", "~")) or "\\" in name or ":" in name or ".." in name.split("/"):
        raise BadSampleError("image outside the folder")
    path = f"{folder}/{name}"
    try:
        local = "file" in ([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol)
        if local and not Path(path).resolve().is_relative_to(Path(folder).resolve()):
            raise BadSampleError("image outside the folder")
        if not fs.isfile(path):
            raise BadSampleError("no image")
        with fs.open(path, "rb") as file:
            content = file.read(MAX_MEMBER_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as wrong:  # a name too long, a loop of links, no permission
        raise BadSampleError("no image") from wrong
    if len(content) > MAX_MEMBER_BYTES:
        raise BadSampleError("member too large")
    return content
