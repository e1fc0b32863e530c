"""Deciding at scale: a changed recipe over ten million rows of cached features, no image read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.bench.cached_pool import write_cached_pool
from tests.bench.figure import Figure, peak_memory

SHARDS = int(os.environ.get("CURATE_BENCH_SHARDS", "1000"))
ROWS = 10_000
SECONDS, GIB = 10, 4
PREVIEW = """
import sys
from curate.cli import run
assert run(["filter", sys.argv[1], "-r", sys.argv[2], "--set", "clip_score.keep_fraction=0.2", "--dry-run"]) == 0
"""
SELECT = """
import sys, time
from curate.curation import measure, select_to
from curate.engines import open_engine
from curate.pool import open_pool
from curate.recipe import load_recipe
from curate.storage import Folder
engine = open_engine("local")
recipe = load_recipe(sys.argv[2], ("clip_score.keep_fraction=0.25",))
select_to(Folder(sys.argv[3]), engine, measure(open_pool(sys.argv[1]), recipe, engine), recipe)
engine.close()
"""


def run(work: Path) -> list[Figure]:
    pool, recipe = write_cached_pool(work, SHARDS, ROWS)
    samples = f"{SHARDS * ROWS / 1e6:g} M rows in {SHARDS} shards"
    preview, preview_gib, said = peak_memory(PREVIEW, str(pool), str(recipe), python=sys.executable)
    select, select_gib, _ = peak_memory(SELECT, str(pool), str(recipe), str(work / "out"))
    kept = next(line for line in said.splitlines() if line.startswith("kept "))
    what = f"{samples}, 5 row filters + exact_duplicates + clip_score; caches of the disk warm"
    return [
        Figure("changed recipe: filter --dry-run", preview, "s", at_most=SECONDS, detail=f"{what}; {kept}"),
        Figure("changed recipe: its memory", preview_gib, "GiB", at_most=GIB, detail=what),
        Figure("changed recipe, selection.parquet written", select, "s", detail=f"{what}; {select_gib:.2f} GiB"),
    ]
