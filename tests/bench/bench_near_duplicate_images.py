"""Near-duplicate images by their hashes: all pairs of random 64-bit hashes within 8 bits, of which 5 % are planted.

imagededup compares all with all; its time for 20,000 hashes is scaled by the square of the number. Both start from
hashes that are there already, and end with the pairs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from tests.bench.figure import Figure, peak_memory
from tests.bench.peers import peer_python, run_peer

MILLIONS = int(os.environ.get("CURATE_BENCH_HASHES", 10))  # the larger of the two sizes, in millions
PEER_HASHES = 20_000
MAX_DISTANCE = 8
PLANTED = 0.05

OURS = """
import json, sys, time
import numpy as np
from filters._hamming import near_pairs
hashes = np.load(sys.argv[1])
began, cpu = time.perf_counter(), time.process_time()
left, right, bits = near_pairs(hashes, int(sys.argv[2]))
print(json.dumps({"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}))
np.save(sys.argv[3], left << 32 | right)
"""
FILTER = """
import json, sys, time
import ibis, numpy as np, pyarrow as pa
from filters.near_duplicate_images import NearDuplicateImages
hashes = np.load(sys.argv[1])
uids = pa.array([f"{n:032x}" for n in range(len(hashes))])
size = pa.array(np.full(len(hashes), 500, np.int32))
rows = pa.table({"row": np.arange(len(hashes)), "uid": uids, "phash": hashes, "width": size, "height": size})
connection = ibis.duckdb.connect()
connection.con.register("rows", rows)
it = NearDuplicateImages(verified=False, max_distance=int(sys.argv[2]))
began = time.perf_counter()
dropped = it.drops(connection.table("rows"))
print(json.dumps({"seconds": time.perf_counter() - began, "dropped": len(dropped)}))
"""
PEER = """
import json, sys, time
import numpy as np
from imagededup.methods import PHash
if __name__ == "__main__":
    hashes = {f"{n:07d}.jpg": f"{value:016x}" for n, value in enumerate(np.load(sys.argv[1]).tolist())}
    began = time.perf_counter()
    found = PHash(verbose=False).find_duplicates(encoding_map=hashes, max_distance_threshold=int(sys.argv[2]))
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "pairs": sum(map(len, found.values())) // 2}))
"""


def planted(count: int, seed: int) -> tuple[np.ndarray, int]:
    """Random hashes uint64 (count,), and how many at its end have a neighbour 1 to 8 bits off at its begin."""
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, count, dtype=np.uint64)
    copies = int(count * PLANTED)
    distance = random.integers(1, MAX_DISTANCE + 1, copies)
    flips = np.zeros(copies, np.uint64)
    for _ in range(64):  # a random further bit until there are enough of them
        bit = np.uint64(1) << random.integers(0, 64, copies, dtype=np.uint64)
        flips |= np.where(np.bitwise_count(flips) < distance, bit, np.uint64(0))
    flips = np.where(np.bitwise_count(flips) == distance, flips, np.uint64(1))
    hashes[-copies:] = hashes[:copies] ^ flips
    return hashes, copies


def found_share(pairs: Path, count: int, copies: int) -> float:
    wanted = np.arange(copies, dtype=np.int64) << 32 | np.arange(count - copies, count)
    return float(np.isin(wanted, np.load(pairs)).mean())


def ours(work: Path, count: int) -> tuple[float, float, float]:
    """Seconds, the share of planted pairs that are found, and peak GiB."""
    hashes, copies = planted(count, seed=count)
    np.save(work / "hashes.npy", hashes)
    del hashes
    _, memory, said = peak_memory(OURS, str(work / "hashes.npy"), str(MAX_DISTANCE), str(work / "pairs.npy"))
    return json.loads(said)["seconds"], found_share(work / "pairs.npy", count, copies), memory


def run(work: Path) -> list[Figure]:
    million, recall, memory = ours(work, 10**6)
    _, filter_memory, said = peak_memory(FILTER, str(work / "hashes.npy"), str(MAX_DISTANCE))
    whole = json.loads(said.splitlines()[-1])  # a progress bar may stand before it
    np.save(work / "few.npy", planted(PEER_HASHES, seed=1)[0])
    python = peer_python("imagededup", ["imagededup"])
    peer = run_peer(python, PEER, str(work / "few.npy"), str(MAX_DISTANCE))["seconds"]
    scaled = peer * (10**6 / PEER_HASHES) ** 2
    name = "near-duplicate images"
    figures = [
        Figure(f"{name}: planted pairs found, 1 M hashes", recall, "recall", at_least=1.0,
               detail=f"5 % planted at 1 to 8 bits; {memory:.2f} GiB"),
        Figure(f"{name}: against imagededup, 1 M hashes", scaled / million, "x", at_least=200,
               detail=f"{million:.1f} s; imagededup {peer:.1f} s for 20,000, so {scaled:,.0f} s"),
        Figure(f"{name}: the filter with `verified: false`, 1 M samples", whole["seconds"], "s",
               detail=f"{whole['dropped']:,} dropped, {filter_memory:.2f} GiB"),
    ]  # fmt: skip
    if MILLIONS > 1:
        seconds, recall, memory = ours(work, MILLIONS * 10**6)
        figures += [
            Figure(f"{name}: planted pairs found, {MILLIONS} M hashes", recall, "recall", at_least=1.0),
            Figure(f"{name}: {MILLIONS} M hashes", seconds, "s", detail=f"{memory:.2f} GiB"),
        ]
    return figures
