"""A night of 10,000 new rows after many that are remembered, against one run over all; and as the state grows.

Made-up columns: one row in ten is a copy of an earlier one. Each filter runs in a process of its own with one thread,
and the processor's seconds count. CURATE_BENCH_STATE has the sizes of the state (100000,1000000), and
CURATE_BENCH_STATE_IMAGES those of the state of views and thumbnails (30000,100000).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.bench.figure import Figure, peak_memory

NEW = 10_000


def sizes(name: str, default: str) -> list[int]:
    return [int(size) for size in os.environ.get(name, default).split(",")]


COMMON = """
import json, sys, time
from pathlib import Path
import ibis, numpy as np, pyarrow as pa
from curate.kept.state import RunFact, State
from filters._memory import Past
from filters.exact_duplicates import ExactDuplicates
from filters.near_duplicate_captions import NearDuplicateCaptions
from filters.near_duplicate_images import NearDuplicateImages
from tests.bench.incremental_rows import rows
kind, folder, first, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
it = {"exact": ExactDuplicates(), "captions": NearDuplicateCaptions(), "images": NearDuplicateImages(),
      "hashes": NearDuplicateImages(verified=False)}[kind]
connection = ibis.duckdb.connect(threads=1)
table = rows(kind, first, count)
connection.con.register("rows", table)
t = connection.table("rows")
state = State(f"{folder}/{kind}")
index = Path(folder) / f"{kind}.json"
runs = [RunFact(**fact) for fact in json.loads(index.read_text())] if index.exists() else []
def size(found):
    return len(found) if isinstance(found, pa.Table) else found.count().to_pyarrow().as_py()
def publish(facts):
    index.write_text(json.dumps([vars(fact) for fact in facts]))
began = time.process_time()
"""
ONE = """
dropped = size(it.drops(t))
print(json.dumps({"cpu": time.process_time() - began, "dropped": dropped}))
"""
NIGHT = """
decision = it.drops_after(t, Past(tuple(state.run(kind, fact) for fact in runs)))
dropped = size(decision.verdicts)
decided = time.process_time()
runs += [state.write_run(kind, run, str(first)) for run in decision.remember()]
if sys.argv[5] == "add":
    publish(state.put_together(kind, runs, f"{first}m"))
said = {"cpu": decided - began, "remember": time.process_time() - decided, "dropped": dropped}
said["bytes"] = sum(file.stat().st_size for file in Path(folder, kind).rglob("*.npy"))
print(json.dumps(said | {"looked_at": decision.looked_at}))
"""


def call(code: str, *arguments: object) -> dict[str, float]:
    """What a part of the benchmark says, and its peak memory in GiB."""
    _, memory, said = peak_memory(COMMON + code, *map(str, arguments))
    return json.loads(said.splitlines()[-1]) | {"memory": memory}


def run(work: Path) -> list[Figure]:
    figures = []
    for kind in ("exact", "captions", "hashes", "images"):
        images = sizes("CURATE_BENCH_STATE_IMAGES", "30000,100000")
        for size in images if kind == "images" else sizes("CURATE_BENCH_STATE", "100000,1000000"):
            figures.append(compared(kind, size, work / f"{size}"))
            print(figures[-1], file=sys.stderr, flush=True)
    return figures


def compared(kind: str, size: int, folder: Path) -> Figure:
    """One run over all against a night after so many rows."""
    folder.mkdir(exist_ok=True)
    first = call(NIGHT, kind, folder, 0, size, "add")
    night = call(NIGHT, kind, folder, size, NEW, "look")
    one = call(ONE, kind, folder, 0, size + NEW)
    said = (
        f"{night['cpu']:.1f} s and {night['memory']:.2f} GiB for {NEW:,} new rows against {one['cpu']:.1f} s and "
        f"{one['memory']:.2f} GiB; {night['remember']:.1f} s to remember them; {night['looked_at']:,} looked at; state "
        f"{first['bytes'] / size:,.0f} B a row"
    )
    return Figure(f"{kind}: one run over {size + NEW:,} against a night", one["cpu"] / night["cpu"], "x", detail=said)
