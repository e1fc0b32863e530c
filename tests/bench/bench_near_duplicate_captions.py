"""Near-duplicate captions: MinHash, LSH and verifying against datasketch; recall against exact Jaccard; memory.

Both sides count the processor's seconds of one process, which is what one core would take. CURATE_BENCH_CAPTIONS
sets the number of captions (1,000,000).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.features.batch import Batch
from curate.features.minhash import Minhash
from curate.measure import BATCH as MEASURED
from curate.shards import Sample
from filters._caption_items import items_of, sign
from filters._caption_memory import nothing
from filters._groups import survivors
from filters._shingles import jaccard, normalised, shingles
from filters.near_duplicate_captions import NearDuplicateCaptions, _near_pairs
from tests.bench.caption_pool import web_captions
from tests.bench.figure import Figure, peak_memory
from tests.bench.peers import peer_python, run_peer

MIN_JACCARD = 0.8
PEER_CAPTIONS = 50_000
BATCH = 4096
SAMPLE = 2000
FEW = 16

PEER = """
import json, sys, time
import pyarrow.parquet as pq
from datasketch import MinHash, MinHashLSH
texts = pq.read_table(sys.argv[1])["text"].to_pylist()
sets = [{t[n : n + 5].encode() for n in range(max(1, len(t) - 4))} for t in texts]
began = time.process_time()
signed = MinHash.bulk(sets, num_perm=128)
middle = time.process_time()
lsh = MinHashLSH(threshold=float(sys.argv[2]), num_perm=128)
for n, it in enumerate(signed):
    lsh.insert(n, it)
found = sum(len(lsh.query(it)) for it in signed)
print(json.dumps({"sign": middle - began, "lsh": time.process_time() - middle, "found": found}))
"""

MEMORY = """
import sys, ibis
from filters.near_duplicate_captions import NearDuplicateCaptions
it = NearDuplicateCaptions(min_jaccard=0.8)
con = ibis.duckdb.connect(threads=1, memory_limit="128MB", temp_directory=sys.argv[2], preserve_insertion_order=False)
t = con.read_parquet(sys.argv[1]).limit(int(sys.argv[3]))
con.create_table("found", it.drops(t.select("row", "uid", *it.reads)))
"""


def run(work: Path) -> list[Figure]:
    count = int(os.environ.get("CURATE_BENCH_CAPTIONS", "1000000"))
    table = work / "captions.parquet"
    captions = web_captions(count)
    sign = write_signed(captions, table)
    few = captions[:PEER_CAPTIONS]
    small_batches = write_signed(few, work / "few.parquet", MEASURED) / len(few)
    engine = ibis.duckdb.connect(threads=1, preserve_insertion_order=False)
    t = engine.read_parquet(str(table))
    it = NearDuplicateCaptions(min_jaccard=MIN_JACCARD)
    began = time.process_time()
    dropped = engine.create_table("dropped", it.drops(t.select("row", "uid", *it.reads)))
    decide = time.process_time() - began
    ours = count / (sign + decide)
    theirs, detail = peer(t, work)
    recall = checked(t)
    small = peak_memory(MEMORY, str(table), str(work), "1000")[1]
    peak = peak_memory(MEMORY, str(table), str(work), str(count))[1]
    distinct = int(t.caption_key.nunique().execute())
    return [
        Figure(
            f"near-duplicate captions: {count:,} captions, 128 permutations, J >= {MIN_JACCARD}, against datasketch",
            ours / theirs, "x", at_least=10,
            detail=f"one core each: {ours:,.0f} captions/s ({sign:.1f} s signing, {BATCH:,} at once, "
            f"{small_batches * count:.1f} s if {MEASURED} at once as when a pool is measured; {decide:.1f} s LSH, "
            f"verifying, verdicts; {int(dropped.count().execute()):,} dropped) against {theirs:,.0f}/s ({detail})",
        ),
        Figure(
            "near-duplicate captions: recall against exact Jaccard", recall.apart, "recall", at_least=0.98,
            detail=f"{recall.pairs:,} pairs of {SAMPLE:,} sampled captions with any other, of which at most one stays; "
            f"of the {recall.few:,} of captions with at most {FEW} neighbours, {recall.found:.4f} were found as pairs; "
            "every pair is verified, so precision is 1",
        ),
        Figure(
            "near-duplicate captions: memory for a distinct caption", (peak - small) * 2**30 / distinct, "bytes",
            at_most=250,
            detail=f"{peak:.2f} GiB at the peak for {distinct:,} distinct captions, {small:.2f} GiB for 1,000; "
            "DuckDB limited to 128 MB of it",
        ),
    ]  # fmt: skip


def write_signed(captions: list[str], file: Path, size: int = BATCH) -> float:
    """Measure `minhash` and write its columns; the processor's seconds of measuring."""
    feature, seconds, writer = Minhash(), 0.0, None
    for start in range(0, len(captions), size):
        batch = Batch("0.tar", [Sample("", 0, 0, text=text) for text in captions[start : start + size]])
        began = time.process_time()
        columns = feature.measure(batch)
        seconds += time.process_time() - began
        part = pa.table(columns)
        rows = np.arange(start, start + len(part))
        texts = pa.array(captions[start : start + len(part)])
        uids = pa.array([f"{n * 0x9E3779B97F4A7C15 & (1 << 64) - 1:016x}" for n in rows.tolist()])
        part = part.append_column("row", pa.array(rows)).append_column("uid", uids).append_column("caption", texts)
        writer = writer or pq.ParquetWriter(file, part.schema)
        writer.write_table(part)
    if writer is not None:
        writer.close()
    return seconds


def peer(t: ir.Table, work: Path) -> tuple[float, str]:
    """datasketch's captions per second on some captions of the pool, told apart before it starts.

    It signs, inserts and queries distinct captions only, from sets that are ready; equal captions cost it
    nothing. The rest of the pool would be as fast at best: a fuller index answers slower.
    """
    captions = t.select("caption").limit(PEER_CAPTIONS).to_pyarrow()["caption"].combine_chunks()
    texts = normalised(captions).dictionary_encode().dictionary
    pq.write_table(pa.table({"text": texts}), work / "peer.parquet")
    python = peer_python("datasketch", ["datasketch==2.0.0", "pyarrow"])
    found: dict[str, Any] = run_peer(python, PEER, str(work / "peer.parquet"), str(MIN_JACCARD))
    seconds = found["sign"] + found["lsh"]
    said = (
        f"datasketch 2.0.0 on {len(captions):,} of them, {len(texts):,} distinct: {found['sign']:.1f} s bulk signing, "
    )
    return len(captions) / seconds, said + f"{found['lsh']:.1f} s MinHashLSH insert and query, nothing verified"


class Checked(NamedTuple):
    """What became of the exact pairs of some sampled captions and any other."""

    pairs: int
    apart: float  # share of them of which at most one caption stays: none is left in the result twice
    few: int  # pairs of captions with at most FEW neighbours
    found: float  # share of those that were found as pairs


def checked(t: ir.Table) -> Checked:
    items = items_of(t, "first")
    rows = items.row[items.best]
    known = sign(t, rows, MIN_JACCARD)
    left, right, similarity = _near_pairs(t, rows, known, nothing(*map(len, known[:2])), MIN_JACCARD)
    kept = survivors(len(rows), left, right, 1 - similarity) < 0
    ours = np.concatenate([left << 32 | right, right << 32 | left])
    read = t.select("row", "caption").to_pyarrow()
    place = np.empty(len(read), np.int64)
    place[read["row"].to_numpy()] = np.arange(len(read))
    texts = normalised(read["caption"].combine_chunks().take(pa.array(place[rows])))
    sample = np.random.default_rng(0).choice(len(texts), min(SAMPLE, len(texts)), replace=False)
    one, other = exact_neighbours(texts, sample)
    few = np.bincount(one, minlength=len(texts))[one] <= FEW
    found = np.isin(one[few] << 32 | other[few], ours)
    return Checked(len(one), float(1 - (kept[one] & kept[other]).mean()), len(found), float(found.mean()))


def exact_neighbours(texts: pa.Array, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a sampled text and another, at least MIN_JACCARD alike, by an inverted index of their pieces.

    Two sets that alike share one of any |A| - ceil(J |A|) + 1 pieces of A: the rarest are looked up
    (prefix filtering, Chaudhuri et al. 2006), and what they lead to is compared exactly.
    """
    hashes, bounds = shingles(texts)
    owner = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(bounds))
    index = hashes.astype(np.uint64) << np.uint64(32) | owner
    index.sort()
    found = []
    for text in sample.tolist():
        mine = np.unique(hashes[bounds[text] : bounds[text + 1]]).astype(np.uint64)
        first = np.searchsorted(index, mine << np.uint64(32))
        last = np.searchsorted(index, (mine + np.uint64(1)) << np.uint64(32))
        rarest = np.argsort(last - first)[: len(mine) - int(np.ceil(MIN_JACCARD * len(mine) - 1e-9)) + 1]
        near = [index[first[n] : last[n]] & np.uint64(0xFFFFFFFF) for n in rarest]
        found.append(np.unique(np.concatenate(near)).astype(np.int64))
    one, other = np.repeat(sample, [len(each) for each in found]), np.concatenate(found)
    one, other = one[one != other], other[one != other]
    near = jaccard(texts, one, other) >= MIN_JACCARD
    return one[near], other[near]


if __name__ == "__main__":
    print(json.dumps([figure.as_dict() for figure in run(Path(os.environ.get("TMPDIR", "/tmp")))], indent=2))
