"""Whether what could not be downloaded makes a pool another sample of its pairs, or another than an earlier pool's.

Links die, and not at random: whole hosts, languages and kinds of pages go at once. Two pools of the same pairs that
were downloaded at different times, and models trained on them, then differ by more than what is compared. So there are
two measures:

- *shift* of a column: the total variation distance between the shares that its values have among the pairs and among
  the images, which is the part of the pool that would have to be other images for the shares to be the same. Some of it
  is chance, and the more so the rarer the values are; so it is compared with the shift that the same number of
  failures, at random, gives (draws of the multivariate hypergeometric distribution).
- the *success rate* against an earlier pool's: the difference's 95 % interval, of pairs that both asked for by Agresti
  and Min (2005, Statistics in Medicine 24), else of two independent proportions by Newcombe (1998, Statistics in
  Medicine 17).
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.acquire.whole import sizes
from curate.errors import RequestError
from curate.storage import Folder

MOST_SHIFT = 0.02  # share of the pool, beyond chance
MOST_POINTS = 0.01  # difference of two success rates that the interval must lie beyond
LEAST_COMMON = 0.95  # of the images that either of two pools has of their common pairs
_DRAWS = 30
_SIGMAS = 4.0  # above the draws' mean
_MOST_VALUES = 1000  # of a column other than the host; one with more is no label
_NAMED = 3
_HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#]*@)?(?P<host>\[[^/?#\]]*\]|[^/?#:@\[\]]+)"
_Z = 1.959964  # 95 %


@dataclass(frozen=True, slots=True)
class Shift:
    """How far failures moved the shares of a column's values. All between 0 and 1."""

    column: str
    shift: float  # total variation distance between pairs and images
    by_chance: float  # its mean where as many failures strike at random
    beyond: bool  # whether it is larger than chance explains, and by more than MOST_SHIFT
    lost: tuple[tuple[str, float, float], ...]  # (value, share of pairs, share of images) of those that lost most

    def warning(self) -> str | None:
        if not self.beyond:
            return None
        lost = ", ".join(f"{value} ({100 * asked:.1f} % -> {100 * got:.1f} %)" for value, asked, got in self.lost)
        return (
            f"failures are concentrated: by {self.column}, {100 * self.shift:.1f} % of the images would have to be "
            f"others to stand for the pairs ({100 * self.by_chance:.1f} % by chance). Lost most: {lost}"
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """The success rate against an earlier pool's. `points` is later minus earlier, between -1 and 1."""

    pool: str
    common: int  # pairs that both asked for; 0: pools of other pairs are compared
    rate: float
    earlier_rate: float
    points: float
    low: float
    high: float
    only_here: int  # images of common pairs that only this pool has
    only_there: int
    beyond: bool

    def warning(self) -> str | None:
        if not self.beyond:
            return None
        sets = f"; {self.only_here} images are only here, {self.only_there} only there" if self.common else ""
        of = f" of {self.common} common pairs" if self.common else ""
        return (
            f"attrition differs from {self.pool}: {100 * self.rate:.1f} % against {100 * self.earlier_rate:.1f} %{of}, "
            f"{100 * self.points:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}]{sets}. "
            "Compare only what both have"
        )


def shifts(table: pa.Table, failed: np.ndarray, labels: Sequence[str]) -> list[Shift]:
    """The shift of the host and of each label column that has few values; none where all or no pairs failed.

    Args:
        table: the pairs, with `url` and the labels.
        failed: bool (pairs,).
    """
    if not failed.any() or failed.all():
        return []
    found = [shift("host", _hosts(table["url"]), failed)]
    for name in labels:
        if 2 <= pc.count_distinct(table[name], mode="all").as_py() <= _MOST_VALUES:
            found.append(shift(name, table[name], failed))
    return found


def shift(name: str, column: pa.ChunkedArray, failed: np.ndarray) -> Shift:
    """The shift of one column (values of any type, nulls are a value)."""
    chunks = pc.dictionary_encode(column, null_encoding="encode").chunks  # of one dictionary
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
    values = [str(value) for value in chunks[-1].dictionary.to_pylist()]
    asked = np.bincount(codes, minlength=len(values))
    lost = np.bincount(codes[failed], minlength=len(values))
    draws = np.random.default_rng(0).multivariate_hypergeometric(asked, int(failed.sum()), _DRAWS, method="marginals")
    chance = np.array([_distance(asked, draw) for draw in draws])
    distance = _distance(asked, lost)
    beyond = distance - chance.mean() > MOST_SHIFT and distance > chance.mean() + _SIGMAS * chance.std()
    share, got = asked / asked.sum(), (asked - lost) / (asked - lost).sum()
    worst = np.argsort(got - share, kind="stable")[:_NAMED]
    named = tuple((values[at], float(share[at]), float(got[at])) for at in worst if got[at] < share[at])
    return Shift(name, float(distance), float(chance.mean()), bool(beyond), named)


def _distance(asked: np.ndarray, lost: np.ndarray) -> float:
    got = asked - lost
    return float(np.abs(asked / asked.sum() - got / got.sum()).sum() / 2)


def _hosts(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """The host of each address, in lower case; (none) where there is none."""
    found = pc.struct_field(pc.extract_regex(urls, _HOST), 0)
    return pc.fill_null(pc.utf8_lower(found), "(none)")


def compare(uids: pa.ChunkedArray, arrived: np.ndarray, earlier: str) -> Comparison:
    """This pool's success against that of an earlier pool, a folder or URL with img2dataset's shard tables.

    Args:
        uids: of the pairs; arrived: bool (pairs,).

    Raises RequestError if there is no such pool.
    """
    before = statuses(earlier)
    here = pa.table({"uid": uids, "here": pa.array(arrived)})
    common = here.join(before, "uid", join_type="inner")
    if not len(common):
        earlier_hits = pc.sum(before["arrived"]).as_py() or 0
        difference = newcombe(int(arrived.sum()), len(arrived), earlier_hits, len(before))
        rates = (float(arrived.sum()) / max(1, len(arrived)), earlier_hits / max(1, len(before)))
        beyond = difference[1] > MOST_POINTS or difference[2] < -MOST_POINTS
        return Comparison(earlier, 0, *rates, *difference, 0, 0, beyond)
    now, then = common["here"].to_numpy(), common["arrived"].to_numpy()
    both, only_here, only_there = (int(rows.sum()) for rows in (now & then, now & ~then, ~now & then))
    points, low, high = agresti_min(only_here, only_there, len(common))
    either = both + only_here + only_there
    beyond = low > MOST_POINTS or high < -MOST_POINTS or both < LEAST_COMMON * either
    rates = ((both + only_here) / len(common), (both + only_there) / len(common))
    return Comparison(earlier, len(common), *rates, points, low, high, only_here, only_there, beyond)


def statuses(pool: str) -> pa.Table:
    """uid, and whether it arrived, of every pair that a pool was asked for; later shards count."""
    folder, shards = Folder(pool), []
    names = sorted(name for name in sizes(folder) if name.endswith(".parquet"))
    if not names:
        raise RequestError(f"compare_with: {pool} holds no shard tables of a download")
    for name in names:
        try:
            table = pq.read_table(io.BytesIO(folder.read_bytes(name)), columns=["uid", "status"])
        except (KeyError, pa.ArrowException) as error:
            raise RequestError(f"compare_with: {pool}/{name} is no shard table of a download ({error})") from error
        good = pc.fill_null(pc.equal(table["status"].cast(pa.string()), "success"), False)
        shards.append(pa.table({"uid": table["uid"].cast(pa.string()), "arrived": good}))
    rows = pa.concat_tables(shards)
    last = rows.group_by("uid", use_threads=False).aggregate([("arrived", "last")])
    return last.rename_columns({"arrived_last": "arrived"})


def newcombe(hits: int, of: int, earlier_hits: int, earlier_of: int) -> tuple[float, float, float]:
    """Difference of two independent proportions and its 95 % interval, from Wilson's of each."""
    if not of or not earlier_of:
        return 0.0, -1.0, 1.0
    one, two = hits / of, earlier_hits / earlier_of
    (low, high), (low2, high2) = _wilson(one, of), _wilson(two, earlier_of)
    below = math.hypot(one - low, high2 - two)
    above = math.hypot(high - one, two - low2)
    return one - two, one - two - below, one - two + above


def _wilson(share: float, of: int) -> tuple[float, float]:
    middle = (share + _Z**2 / (2 * of)) / (1 + _Z**2 / of)
    half = _Z * math.sqrt(share * (1 - share) / of + _Z**2 / (4 * of**2)) / (1 + _Z**2 / of)
    return middle - half, middle + half


def agresti_min(only_here: int, only_there: int, pairs: int) -> tuple[float, float, float]:
    """Difference of two proportions of the same pairs and its 95 % interval, half a pair added to each cell."""
    points = (only_here - only_there) / pairs
    b, c, n = only_here + 0.5, only_there + 0.5, pairs + 2
    middle, half = (b - c) / n, _Z * math.sqrt(b + c - (b - c) ** 2 / n) / n
    return points, max(-1.0, middle - half), min(1.0, middle + half)
