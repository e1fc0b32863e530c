"""A night of 10,000 new rows after many that are remembered, against one run over all; and as the state grows.

Made-up columns: one row in ten is a copy of an earlier one. Each filter runs in a process of its own with one thread,
and the processor's seconds count. CURATE_BENCH_STATE has the sizes of the state ("100000,1000000").
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.bench.figure import Figure, peak_memory

SIZES = [int(size) for size in os.environ.get("CURATE_BENCH_STATE", "100000,1000000").split(",")]
NEW = 10_000
IMAGES = int(os.environ.get("CURATE_BENCH_STATE_IMAGES", 100_000))
"""A state of more images than this is measured without the one run, which takes long."""

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
        for size in SIZES:
            folder = work / f"{size}"
            folder.mkdir(exist_ok=True)
            first = call(NIGHT, kind, folder, 0, size, "add")
            night = call(NIGHT, kind, folder, size, NEW, "look")
            said = (
                f"{night['cpu']:.1f} s and {night['memory']:.2f} GiB for {NEW:,} new rows, {night['remember']:.1f} s "
                f"to remember them; {night['looked_at']:,} of {size:,} looked at; state {first['bytes'] / size:,.0f} "
                "B a row"
            )
            if kind != "images" or size <= IMAGES:
                one = call(ONE, kind, folder, 0, size + NEW)
                said += f"; one run {one['cpu']:.1f} s, {one['memory']:.2f} GiB"
                ratio = one["cpu"] / night["cpu"]
                figures.append(Figure(f"{kind}: one run over {size + NEW:,} against a night", ratio, "x", detail=said))
            else:
                figures.append(Figure(f"{kind}: a night after {size:,}", night["cpu"], "s", detail=said))
    return figures
