"""Defects planted into human captions: how many near_duplicate_captions finds, and what it merges by mistake.

python -m tests.experiments.near_duplicate_captions_table ../shared/data
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.features.batch import Batch
from curate.features.minhash import Minhash
from curate.shards import Sample
from filters._lsh import band_keys, banding
from filters._shingles import jaccard, normalised

BOUNDS = (0.7, 0.8, 0.9)
Edit = Callable[[list[str], np.random.Generator, list[str]], str]


def swapped(words: list[str], random: np.random.Generator, vocabulary: list[str]) -> str:
    place = int(random.integers(len(words)))
    return " ".join([*words[:place], str(random.choice(vocabulary)), *words[place + 1 :]])


EDITS: dict[str, Edit] = {
    "case and punctuation": lambda words, random, vocabulary: " - ".join(words).upper() + " !!",
    "site name appended": lambda words, random, vocabulary: " ".join(words) + " | Photos.com",
    "last word cut off": lambda words, random, vocabulary: " ".join(words[:-1]),
    "a number appended": lambda words, random, vocabulary: " ".join(words) + f" {random.integers(10_000)}",
    "a word swapped": swapped,
    "cut to two thirds": lambda words, random, vocabulary: " ".join(words[: len(words) * 2 // 3]),
}


def main(data: str) -> None:
    photos = pq.read_table(Path(data) / "captioned.parquet", columns=["captions"])["captions"].to_pylist()
    captions = [caption.rstrip(" .") for photo in photos for caption in photo]
    vocabulary = sorted({word for caption in captions for word in caption.split()})
    random = np.random.default_rng(0)
    print("| change | mean Jaccard | found at 0.7 | at 0.8 | at 0.9 |", "| --- | --- | --- | --- | --- |", sep="\n")
    for name, edit in EDITS.items():
        row(name, captions, [edit(caption.split(), random, vocabulary) for caption in captions])
    first, second = ([caption for photo in photos for caption in photo[a:b]] for a, b in ((0, 4), (1, 5)))
    row("another person's caption of the same photo", first, second)
    row("a caption of the next photo", captions[:-5], captions[5:])


def row(name: str, left: list[str], right: list[str]) -> None:
    """One line of the table: pairs that differ when normalised or not, each judged as the filter does."""
    texts = normalised(pa.array([*left, *right]))
    signed = Minhash().measure(Batch("", [Sample("", 0, 0, text=text) for text in [*left, *right]]))["minhash"]
    values = signed.flatten().to_numpy().reshape(len(texts), -1)
    one, other = np.arange(len(left)), np.arange(len(left), len(texts))
    exact = jaccard(texts, one, other)
    cells = []
    for bound in BOUNDS:
        keys = band_keys(values, *banding(values.shape[1], bound))
        paired = (keys[one] == keys[other]).any(axis=1)
        found, due = (paired & (exact >= bound)).sum(), (exact >= bound).sum()
        cells.append(f"{found / len(left):.1%} (of {due / len(left):.1%} due)")
    print(f"| {name} | {exact.mean():.2f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
