"""Which concepts of a list a caption names, by MetaCLIP's substring rule (Xu et al. 2023, section 3.2)."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from curate.errors import RequestError
from curate.features.batch import Batch
from curate.features.contract import Feature
from curate.hashing import file_sha256

APART = {mark: f" {mark} " for mark in ",.;:?!`"} | dict.fromkeys("\t\r", " ")
"""Punctuation that stands by itself, as MetaCLIP's `spacing` has it; tabs and line ends become spaces."""
END = " \n "
BETWEEN = -2
"""The code of the word between two captions, which is a line end: nothing matches across it."""


class Concepts(Feature):
    """`concepts`: the entries of the list `metadata` that stand in the caption, each once, in the list's order.

    An entry matches where it stands between spaces, in the very case it is written in, after punctuation was set
    apart. `metadata` is a file with one concept a line, or a `.json` list of strings such as MetaCLIP's
    metadata.json; an entry that comes twice counts at its first place. Null without a caption.
    """

    name: ClassVar = "concepts"
    version: ClassVar = 1
    needs: ClassVar = ("text",)
    metadata: str | None = None

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"concepts": pa.list_(pa.string())})

    def weights_digest(self) -> str:
        file = _file(self.metadata)
        open_trie.cache_clear()  # asked for at the start of a run: from here on the file is taken as it is now
        return file_sha256(file)

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        trie = open_trie(self.metadata)
        texts = [text or "" for text in batch.texts]
        bounds, entries = trie.matches(texts)
        missing = pa.array([text is None for text in batch.texts])
        names = trie.entries.take(pa.array(entries))
        return {"concepts": pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), names, mask=missing)}


@dataclass(frozen=True)
class Trie:
    """A list of concepts as a tree of words.

    A space on both sides of an entry means that its words are whole words of the caption: so the tree is walked
    word by word, from every word of a batch of captions at once.
    """

    entries: pa.Array
    words: dict[str, int]
    levels: tuple[np.ndarray, ...]
    """For each depth, sorted: node above x number of words + word. A node's number is its place here."""
    ends: tuple[np.ndarray, ...]
    """For each depth, the entry that ends at a node, or -1."""

    def matches(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The entries in each text, sorted: bounds (texts + 1,) into entry numbers (total,)."""
        line = END.join(text.replace("\n", " ") for text in texts)
        for mark, apart in APART.items():
            line = line.replace(mark, apart)
        words = line.split(" ")
        codes = np.fromiter(map(self.words.get, [*words, END], itertools.repeat(-1)), np.int64, len(words) + 1)
        owner = np.cumsum(codes == BETWEEN)
        at, count, pairs = np.flatnonzero(codes >= 0), len(self.entries), [np.zeros(0, np.int64)]
        node = np.zeros(len(at), np.int64)
        for depth, (keys, ends) in enumerate(zip(self.levels, self.ends, strict=True)):
            word = codes[at + depth]
            wanted = node * len(self.words) + word
            place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            hit = (keys[place] == wanted) & (word >= 0)
            at, node = at[hit], place[hit]
            ended = ends[node] >= 0
            pairs.append(owner[at[ended]] * count + ends[node[ended]])
        joined = np.unique(np.concatenate(pairs))
        return np.searchsorted(joined // count, np.arange(len(texts) + 1)), joined % count


def build_trie(entries: Sequence[str]) -> Trie:
    """The tree of a list of concepts."""
    words: dict[str, int] = {}
    never = re.compile(r"^$|[\t\n\r]")  # a caption has no such character left
    split = [[] if never.search(entry) else entry.split(" ") for entry in entries]
    flat = np.array([words.setdefault(word, len(words)) for parts in split for word in parts], np.int64)
    lengths = np.array([len(parts) for parts in split], np.int64)
    starts = np.cumsum(lengths) - lengths
    left, node = np.flatnonzero(lengths > 0), np.zeros(len(entries), np.int64)
    levels, all_ends, radix = [], [], len(words) + 1  # one more for the word between captions
    for depth in range(int(lengths.max(initial=0))):
        left = left[lengths[left] > depth]
        keys, node[left] = np.unique(node[left] * radix + flat[starts[left] + depth], return_inverse=True)
        ends = np.full(len(keys), -1, np.int64)
        ending = left[lengths[left] == depth + 1][::-1]
        ends[node[ending]] = ending  # backwards, so that the first of equal entries stays
        levels.append(keys)
        all_ends.append(ends)
    words["\n"] = BETWEEN
    return Trie(pa.array(entries, pa.string()), words, tuple(levels), tuple(all_ends))


def read_concepts(path: Path) -> list[str]:
    """A list of concepts from a file: a `.json` list of strings, or one a line.

    Raises:
        RequestError: it is neither, or holds none.
    """
    where = f"features.concepts.metadata: {path}"
    try:
        text = path.read_text("utf-8")
        found = json.loads(text) if path.suffix == ".json" else [line.strip() for line in text.split("\n")]
    except (OSError, ValueError) as error:
        raise RequestError(f"{where} cannot be read: {error}") from error
    if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
        raise RequestError(f"{where} is not a JSON list of strings")
    if not any(found):
        raise RequestError(f"{where} holds no concept")
    return found


@lru_cache(maxsize=1)
def open_trie(path: str | None) -> Trie:
    """The tree of a file, once per process and run."""
    return build_trie(read_concepts(_file(path)))


def _file(metadata: str | None) -> Path:
    if not metadata:
        raise RequestError(
            "features.concepts.metadata: give a file with one concept a line, or MetaCLIP's metadata.json: "
            "--set features.concepts.metadata=FILE"
        )
    if not Path(metadata).is_file():
        raise RequestError(f"features.concepts.metadata: no file {metadata!r}")
    return Path(metadata)
