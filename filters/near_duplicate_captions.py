"""Drop boilerplate captions, and all but a few of the samples that share nearly the same caption."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from pydantic import Field

from filters._caption_items import Signed, items_of, numbered, sign, texts_at
from filters._caption_memory import EVERY, NEVER, Earlier, Fresh, caption_runs, earlier
from filters._columns import Tally
from filters._groups import places, survivors
from filters._lsh import candidates, may_be_alike, most_bits, sides, sorted_order
from filters._memory import Decision, Past, RememberingFilter, Run
from filters._shingles import jaccard, normalised
from filters.contract import number

PAIRS = 1 << 18  # candidates verified at once


class NearDuplicateCaptions(RememberingFilter):
    """Group captions with a Jaccard similarity of at least `min_jaccard` and thin the groups.

    A caption shared by at least `boilerplate` samples and by at least `boilerplate_share` of the samples
    that come to this filter ("click to enlarge") tells nothing of any of their images: the whole group
    goes; with both null, none does. Of the other groups `max_copies` samples stay, null for all: those with
    the `highest_clip_score`, or the `first` by uid. Candidates by MinHash LSH (Broder 1997; Leskovec et al.,
    Mining of Massive Datasets, ch. 3), each verified exactly on the captions' five-character pieces.

    Of generations, a group's samples are counted up to each one's own: what becomes boilerplate later takes none of
    the earlier samples back.

    Memory: 16 bytes a sample, a few hundred a distinct caption; columns stream past.
    """

    min_jaccard: float = Field(0.8, gt=0, le=1)
    max_copies: int | None = Field(1, ge=1)
    boilerplate: int | None = Field(50, ge=2)
    boilerplate_share: float | None = Field(None, gt=0, le=1)
    keep: Literal["first", "highest_clip_score"] = "first"

    @property
    def reads(self) -> tuple[str, ...]:
        columns = ("minhash", "caption_key", "caption")
        return columns if self.keep == "first" else (*columns, "clip_score")

    def drops(self, t: ir.Table) -> ir.Table:
        verdicts = self.drops_after(t, Past()).verdicts
        assert isinstance(verdicts, ir.Table)
        return verdicts

    def drops_after(self, t: ir.Table, past: Past) -> Decision:
        known = t.filter(t.caption_key.notnull() & t.caption.notnull())
        row, item, best, generation, key = items_of(known, self.keep)
        signed = sign(known, row[best], self.min_jaccard)
        if len(signed.unsigned):
            return self.drops_after(t.anti_join(ibis.memtable(pa.table({"row": signed.unsigned})), "row"), past)
        old = earlier(past, key[best], signed.keys, len(signed.sketches))
        m = len(old.number)
        item, fresh = numbered(item, key[best], old)
        rows = np.concatenate([-1 - np.arange(m), row[best[fresh]]])
        signed = signed.after(old, fresh)
        left, right, similarity = _near_pairs(known, rows, signed, old, self.min_jaccard)
        of_item = survivors(len(rows), left, right, 1 - similarity, settled=old.leads)
        leader = np.where(of_item >= 0, of_item, np.arange(len(rows)))
        leader[:m] = old.leader
        alike = _similarity_to(leader, left, right, similarity)
        alike[:m] = old.alike
        group = leader[item]
        counted = self._counted(group, generation, old, len(rows))
        place = places(group, np.argsort(group, kind="stable")) + counted.before[group]
        dropped = np.flatnonzero((counted.bound != NEVER) | (place >= (self.max_copies or np.inf)))
        found = {
            "row": row[dropped],
            "kept_row": rows[group[dropped]],
            "samples": np.where(counted.bound != NEVER, counted.size, 0)[dropped],  # 0 for a mere copy
            "bound": counted.bound[dropped],
            "alike": alike[item[dropped]],
        }

        def remember() -> Iterator[Run]:
            count = past.rows
            everywhere = np.concatenate([old.number, count + np.arange(len(fresh))])
            texts, uids = texts_at(known, "caption", rows[m:]), texts_at(known, "uid", rows[m:])
            new = Fresh(key[best[fresh]], signed.keys[:, m:], signed.sketches[:, m:], everywhere[leader[m:]],
                        alike[m:], texts, uids)  # fmt: skip
            return caption_runs(new, counted.tally(everywhere, group), count)

        return Decision(_verdicts(known, pa.table(found), old, self.min_jaccard), m, remember)

    def bound(self, samples: int) -> float:
        """How many of some samples must share a caption for it to be boilerplate; infinite for none."""
        if self.boilerplate is None and self.boilerplate_share is None:
            return math.inf
        return max(self.boilerplate or 2, math.ceil((self.boilerplate_share or 0) * samples - 1e-9))

    def _counted(self, group: np.ndarray, generation: np.ndarray, old: Earlier, items: int) -> Counted:
        """Count groups (samples,), led by some of the items, one generation after the other."""
        before, reached = np.zeros(items, np.int64), np.full(items, NEVER, np.int64)
        before[: len(old.size)], reached[: len(old.size)] = old.size, old.bound
        size, samples = before.copy(), old.samples
        sizes, bounds = np.zeros(len(group), np.int64), np.zeros(len(group), np.int64)
        for now in np.unique(generation).tolist():
            mine = generation == now
            samples += int(mine.sum())
            size += np.bincount(group[mine], minlength=items)
            bound = self.bound(samples)
            if bound < math.inf:
                reached[(reached == NEVER) & (size >= bound)] = bound
            sizes[mine], bounds[mine] = size[group[mine]], reached[group[mine]]
        return Counted(before, sizes, bounds, reached)


class Counted(NamedTuple):
    """How many samples share a caption."""

    before: np.ndarray  # int64 (items,): earlier samples in the group that an item leads
    size: np.ndarray  # int64 (samples,): samples in its group, up to its own generation
    bound: np.ndarray  # int64 (samples,): the bound that the group reached by then, or `NEVER`
    reached: np.ndarray  # int64 (items,): the same of all generations

    def tally(self, number: np.ndarray, group: np.ndarray) -> Tally:
        """What to remember, of items with some numbers (items,) and the groups of new samples (samples,)."""
        leaders, count = np.unique(group, return_counts=True)
        key = number[leaders]
        order = np.argsort(key)
        counted = np.stack([count, self.reached[leaders]], axis=1)[order]
        every = np.array([[len(group), NEVER]])
        return Tally(np.concatenate([EVERY, key[order]]), np.concatenate([every, counted]))


def _near_pairs(
    t: ir.Table, rows: np.ndarray, signed: Signed, old: Earlier, min_jaccard: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of captions at least `min_jaccard` alike, given the row of each caption's best sample and its signature;
    the earlier ones come first, and no two of them are a pair.

    Returns items left < right (pairs,), and their exact similarity (pairs,).
    """
    most, m = most_bits(signed.permutations, min_jaccard), len(old.number)

    def likely(pairs: np.ndarray) -> np.ndarray:
        alike = may_be_alike(signed.sketches, pairs, most)
        return alike & (pairs & np.uint64(0xFFFFFFFF) >= np.uint64(m)) if m else alike

    pairs = candidates(signed.keys, likely)
    wanted, family = np.zeros(len(rows), bool), np.arange(len(rows), dtype=np.uint32)
    for left, right in map(sides, _blocks(pairs[::-1])):
        wanted[left] = wanted[right] = True
        family[right] = left  # at last the best of those that it is paired with
    family = family[family]
    texts = normalised(old.caption.filter(pa.array(wanted[:m]))).cast(pa.large_string())
    texts = pa.concat_arrays([texts, texts_at(t, "caption", rows[m:][wanted[m:]], normalised)])
    place = np.cumsum(wanted) - 1
    # A family's pairs together, so that its texts are cut up once.
    pairs = pairs[sorted_order(family[pairs >> np.uint64(32)])]
    parts = []
    for left, right in map(sides, _blocks(pairs)):
        similarity = jaccard(texts, place[left], place[right])
        near = similarity >= min_jaccard
        parts.append((left[near], right[near], similarity[near]))
    none = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    left, right, similarity = (np.concatenate(side) for side in zip(none, *parts, strict=True))
    return left, right, similarity


def _blocks(pairs: np.ndarray) -> Iterator[np.ndarray]:
    """Some pairs at a time, (PAIRS,)."""
    for start in range(0, len(pairs), PAIRS):
        yield pairs[start : start + PAIRS]


def _similarity_to(leader: np.ndarray, left: np.ndarray, right: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """How alike each item and its leader are, 1 for a leader itself: float64 (items,)."""
    alike = np.ones(len(leader))
    mine = leader[right] == left
    alike[right[mine]] = similarity[mine]
    return alike


def _verdicts(t: ir.Table, dropped: pa.Table, old: Earlier, min_jaccard: float) -> ir.Table:
    """Reasons and survivors, put together by the engine: a sample costs a few numbers here, no text."""
    found = ibis.memtable(dropped)
    kept = t.select(kept_row="row", duplicate_of="uid", caption="caption")
    if len(old.number):
        earlier = {"kept_row": -1 - np.arange(len(old.number)), "duplicate_of": old.uid, "caption": old.caption}
        kept = kept.union(ibis.memtable(pa.table(earlier)).cast(dict(kept.schema().items())))
    it = found.left_join(kept, "kept_row")
    quoted = "'" + it.caption.substr(0, 60) + "'"
    shared = ibis.literal("boilerplate: ") + it.samples.cast("string") + " samples >= " + it.bound.cast("string")
    shared = shared + " share the caption "
    same = "caption like a kept sample's: Jaccard " + number(it.alike) + f" >= {min_jaccard:.3f}, "
    whole = it.samples > 0
    verdicts = it.select(
        "row",
        reason=ibis.ifelse(whole, shared, same) + quoted,
        duplicate_of=ibis.ifelse(whole, ibis.null("string"), it.duplicate_of),
    )
    verdicts.limit(0).to_pyarrow()  # tells the engine of the table in memory, which compiling alone does not
    return verdicts
