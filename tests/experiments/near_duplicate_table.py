"""What share of the copies of photos does near_duplicate_images find, and does it merge two photos?

    python -m tests.experiments.near_duplicate_table ../shared/data

Each kind of copy is planted by itself: a pool of all photos, and one copy of each photo in the sample. A copy is found
if it and its photo are merged. The kinds that mirror or turn are looked for with those options. Prints a table in
Markdown; about three minutes on two cores.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.features.batch import Batch
from curate.features.image_views import ImageViews
from curate.features.phash import Phash
from curate.shards import Sample
from filters.near_duplicate_images import NearDuplicateImages
from tests.experiments.image_copies import COPIES, copy_of

BATCH = 64
ASKED = {"half size": 0.99, "JPEG quality 40": 0.99, "grayscale": 0.99, "brighter": 0.99, "crop 2 % a side": 0.99,
         "border of 4 pixels": 0.99, "corner watermark": 0.95, "crop 5 % a side": 0.95, "crop 10 % a side": 0.8,
         "mirror": 0.98}  # fmt: skip
PLAIN = NearDuplicateImages(max_distance=10, verified=False, keep="first")
OURS = NearDuplicateImages(keep="first")
MIRROR = NearDuplicateImages(keep="first", mirror=True)
TURNED = NearDuplicateImages(keep="first", rotations=True)
ALL = NearDuplicateImages(keep="first", mirror=True, rotations=True)


def measured(images: list[bytes]) -> pa.Table:
    """The columns that the filter reads."""
    parts = []
    for start in range(0, len(images), BATCH):
        samples = [Sample(str(n), 0, 0, memoryview(image), 0, "") for n, image in enumerate(images[start:][:BATCH])]
        batch = Batch("00000.tar", samples)
        parts.append(pa.table(ImageViews().measure(batch) | Phash().measure(batch)))
    return pa.concat_tables(parts)


def merged(it: NearDuplicateImages, table: pa.Table) -> list[tuple[int, int]]:
    """The dropped rows of a table and the rows they are said to copy."""
    rows = pa.array(range(len(table)), pa.int64())
    connection = ibis.duckdb.connect()
    connection.con.register("rows", table.add_column(0, "row", rows).add_column(1, "uid", uids(len(table))))
    found: Any = it.drops(connection.table("rows"))
    return [(row, int(of)) for row, of in zip(found["row"].to_pylist(), found["duplicate_of"].to_pylist(), strict=True)]


def uids(count: int) -> pa.Array:
    return pa.array([f"{n:09d}" for n in range(count)])


def recall(it: NearDuplicateImages, photos: pa.Table, sample: np.ndarray, copies: pa.Table) -> tuple[float, int]:
    """The share of copies that are merged with their photo, and how many merges are of different photos."""
    source = np.concatenate([np.arange(len(photos)), sample])
    pairs = merged(it, pa.concat_tables([photos, copies]))
    right = {row for row, of in pairs if source[row] == source[of]}
    return len(right) / len(sample), len(pairs) - len(right)


def setting_for(name: str) -> tuple[NearDuplicateImages, str]:
    if name.startswith("mirror"):
        return MIRROR, " (`mirror`)"
    return (TURNED, " (`rotations`)") if name.startswith("turned") else (OURS, "")


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--every", default=4, show_default=True, help="Plant a copy of every so many photos.")
@click.option("--first", default=1, show_default=True, help="The first photo that is copied.")
def main(data: Path, every: int, first: int) -> None:
    """Print the table for the photos in DATA."""
    names = ("photos.parquet", "captioned.parquet")
    images = [image for name in names for image in pq.read_table(data / name)["jpg"].to_pylist()]
    photos = measured(images)
    sample = np.arange(first, len(images), every)
    print(f"{len(images)} photos, {len(sample)} of them copied.\n")
    print("| copy | phash ≤ 10 | verified | asked |\n| --- | --- | --- | --- |")
    wrong = [0, 0]
    everything = [photos]
    for name in COPIES:
        copies = measured([copy_of(images[n], name, int(n)) for n in sample])
        everything.append(copies)
        setting, option = setting_for(name)
        (plain, wrong_plain), (ours, wrong_ours) = (recall(it, photos, sample, copies) for it in (PLAIN, setting))
        wrong = [wrong[0] + wrong_plain, wrong[1] + wrong_ours]
        asked = f"≥ {ASKED[name]}" if name in ASKED else ""
        print(f"| {name}{option} | {plain:.3f} | {ours:.3f} | {asked} |", flush=True)
    pairs = len(images) * (len(images) - 1) // 2
    print(
        f"\nMerges of different photos: {wrong[0]} by phash, {wrong[1]} verified, in all {len(COPIES)} pools together."
    )
    alone = [len(merged(it, photos)) for it in (PLAIN, ALL)]
    print(
        f"Of the {pairs:,} pairs of different photos alone: {alone[0]} by phash, {alone[1]} with mirror and rotations."
    )
    pool = pa.concat_tables(everything)
    source = np.concatenate([np.arange(len(images)), np.tile(sample, len(COPIES))])
    began = time.process_time()
    found = merged(ALL, pool)
    seconds = time.process_time() - began
    false = sum(source[row] != source[of] for row, of in found)
    print(f"All {len(pool):,} in one pool: {(len(found) - false) / (len(pool) - len(images)):.4f} of the copies go, "
          f"{false} different photos are merged, in {seconds:.0f} s of processor time.")  # fmt: skip


if __name__ == "__main__":
    main()
