"""Drift: whether a run's keep rates and score distributions moved away from those of the runs before it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curate.pool import Pool
from curate.report.histograms import charts_of, gather, quantile
from curate.report.measured import open_measured, steps_of
from curate.storage import Folder

HISTORY = "curation.jsonl"
SELECTION = "selection.parquet"
EVERYTHING = "all filters"
LINES = 1000
"""A history keeps so many runs; older ones are dropped."""
BINS = 10
CHANCE = 0.999
"""Of runs from an unchanged source, so many have a smaller index than the one that chance is granted."""
_STEP = 0.02  # relative width of the cells that values are counted in
_SMALLEST = 1e-4  # values nearer to 0 count as 0
log = logging.getLogger("curate.drift")


class Bounds(BaseModel):
    """From where on a move is an alarm. Each is also more than chance explains."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    psi: float = Field(0.2, gt=0)
    """Population stability index of a score's distribution."""
    sigmas: float = Field(3.0, ge=0)
    points: float = Field(0.02, ge=0, lt=1)
    """Of a keep rate, as a share: 0.02 is two points; both this and `sigmas` must be passed."""
    window: int = Field(10, ge=1)
    """The runs before this one that it is compared with."""


class Observation(BaseModel):
    """What a history keeps of a run: counts, which add up over runs."""

    at: str
    """When it was recorded, ISO 8601, UTC."""
    out: str
    pool_fingerprint: str
    recipe_hash: str
    samples: int
    rates: dict[str, tuple[int, int]]
    """Filter to samples that came in, and that went on."""
    scores: dict[str, dict[int, int]] = {}
    """What is measured to the number of samples in each cell; see `cells`."""

    def same_request(self, other: Observation) -> bool:
        """Whether both are of the same dataset, made again or found done."""
        return (self.out, self.pool_fingerprint, self.recipe_hash) == (
            other.out,
            other.pool_fingerprint,
            other.recipe_hash,
        )


@dataclass(frozen=True)
class Move:
    """How one quantity moved. `change` above `bound` is an alarm.

    A keep rate's values are shares, its change their distance. A distribution's values are medians over all
    samples of the pool, its change the population stability index.
    """

    kind: Literal["keep rate", "distribution"]
    what: str
    before: float
    now: float
    change: float
    bound: float
    runs: int
    """Earlier runs that it is compared with."""

    @property
    def alarm(self) -> bool:
        return self.change > self.bound

    def as_dict(self) -> dict[str, Any]:
        values = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return values | {"alarm": self.alarm}

    def __str__(self) -> str:
        if self.kind == "keep rate":
            return (
                f"{self.what} kept {self.now:.1%} of what came in, {self.before:.1%} before: "
                f"{100 * self.change:.1f} points, bound {100 * self.bound:.1f}"
            )
        return (
            f"{self.what} has median {self.now:.4g}, {self.before:.4g} before: "
            f"PSI {self.change:.2f}, bound {self.bound:.2f}"
        )


def observe(manifest: Mapping[str, Any], out: Folder, pool: Pool) -> Observation:
    """Count what a finished dataset's filters kept, and the values that they judged by over the whole pool.

    Values are read from the pool's cached features, shard by shard; what the cache lacks is left out.
    """
    facts, measured = dict(manifest), open_measured(dict(manifest), pool)
    selection = facts["selection"]
    rates = {step["filter"]: (step["in"], step["out"]) for step in facts["funnel"]}
    charts = {chart.label: chart for chart in charts_of(steps_of(facts), measured.columns)}
    with out.local_copy(SELECTION) as path:
        found = gather(path, list(charts.values()), measured, [step["filter"] for step in facts["funnel"]])
    scores = {}
    for histogram in found:
        values, counts = histogram.values()
        scores[histogram.chart.label] = cells(values, counts.sum(axis=0))
    return Observation(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        out=out.url,
        pool_fingerprint=facts["pool_fingerprint"],
        recipe_hash=facts["recipe_hash"],
        samples=selection["rows"],
        rates=rates | {EVERYTHING: (selection["rows"], selection["kept"])},
        scores=scores,
    )


def cells(values: np.ndarray, counts: np.ndarray) -> dict[int, int]:
    """Values (n,) with their counts (n,) as counts of cells some 2 % wide, the same for every run.

    >>> cells(np.array([0.0, 1.0, 1.001, -1.0]), np.array([1, 2, 3, 4]))
    {-461: 4, 0: 1, 461: 5}
    """
    codes = np.sign(values) * np.round(np.log1p(np.abs(values) / _SMALLEST) / _STEP)
    used, place = np.unique(codes.astype(np.int64), return_inverse=True)
    return dict(zip(used.tolist(), np.bincount(place, counts).astype(np.int64).tolist(), strict=True))


def compare(now: Observation, earlier: Sequence[Observation], bounds: Bounds) -> list[Move]:
    """How every keep rate and distribution moved from the last runs of the same recipe; nothing without any."""
    before = [run for run in earlier if run.recipe_hash == now.recipe_hash][-bounds.window :]
    moves = []
    for name, (came, kept) in now.rates.items():
        pairs = [run.rates[name] for run in before if run.rates.get(name, (0, 0))[0]]
        if came and pairs:
            moves.append(_rate(name, came, kept, pairs, bounds))
    for name, counts in now.scores.items():
        known = [run.scores[name] for run in before if run.scores.get(name)]
        if counts and known:
            moves.append(_distribution(name, counts, known, bounds))
    return moves


def _rate(name: str, came: int, kept: int, pairs: Sequence[tuple[int, int]], bounds: Bounds) -> Move:
    """Two proportions against their standard error; what earlier runs differ by beyond chance is added to it."""
    trials, successes = np.array(pairs, np.float64).T
    before, now = successes.sum() / trials.sum(), kept / came
    both = (successes.sum() + kept) / (trials.sum() + came)
    variance = both * (1 - both) * (1 / came + 1 / trials.sum())
    if len(pairs) > 2:
        by_chance = (before * (1 - before) / trials).mean()
        variance += max(0.0, np.var(successes / trials, ddof=1) - by_chance) * (1 + 1 / len(pairs))
    bound = max(bounds.points, bounds.sigmas * math.sqrt(variance))
    return Move("keep rate", name, float(before), now, abs(now - float(before)), bound, len(pairs))


def _distribution(name: str, counts: dict[int, int], known: Sequence[dict[int, int]], bounds: Bounds) -> Move:
    """The population stability index over about ten bins that hold as much of both sides together.

    By chance alone it is about chi-squared times (1/n + 1/m) (Yurdakul and Naranjo 2020, "Statistical properties of
    the population stability index"), so a small pool is granted more.
    """
    from scipy.stats import chi2

    used = np.array(sorted(set(counts).union(*known)))
    new = np.array([counts.get(code, 0) for code in used.tolist()], np.float64)
    old = np.array([sum(run.get(code, 0) for run in known) for code in used.tolist()], np.float64)
    both = new / new.sum() / 2 + old / old.sum() / 2
    _, place = np.unique(np.floor((np.cumsum(both) - both / 2) * BINS), return_inverse=True)
    binned = [np.bincount(place, side) + 0.5 for side in (new, old)]  # half a sample: no share is zero
    a, b = (side / side.sum() for side in binned)
    psi = float(((a - b) * np.log(a / b)).sum())
    chance = float(chi2.ppf(CHANCE, max(1, len(a) - 1))) * (1 / new.sum() + 1 / old.sum())
    values = np.sign(used) * _SMALLEST * np.expm1(np.abs(used) * _STEP)
    was, is_now = (quantile(values, side, 0.5) for side in (old, new))
    return Move("distribution", name, was, is_now, psi, max(bounds.psi, chance), len(known))


def read_history(folder: Folder) -> list[Observation]:
    """The runs that a history's folder holds, the oldest first; a damaged line is left out with a warning."""
    found = []
    for number, line in enumerate(read_lines(folder, HISTORY), 1):
        try:
            found.append(Observation.model_validate(line))
        except ValidationError:
            log.warning("%s/%s: record %d is damaged and left out", folder.url, HISTORY, number)
    return found


def before(now: Observation, history: Sequence[Observation]) -> tuple[list[Observation], bool]:
    """The runs before this one, and whether the history has this one already."""
    for place, run in enumerate(history):
        if run.same_request(now):
            return list(history[:place]), True
    return list(history), False


def record(folder: Folder, history: Sequence[Observation], now: Observation) -> None:
    """Put a run into the history: at its end, or in the place of the same request."""
    lines = [now if run.same_request(now) else run for run in history]
    if not any(run is now for run in lines):
        lines.append(now)
    write_lines(folder, HISTORY, [run.model_dump(mode="json") for run in lines])


def read_lines(folder: Folder, name: str) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; none if there is no file. What is no object is left out."""
    if not folder.exists(name):
        return []
    found = []
    for number, line in enumerate(folder.read_bytes(name).decode("utf-8", "replace").splitlines(), 1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict):
            found.append(value)
        else:
            log.warning("%s/%s: line %d is damaged and left out", folder.url, name, number)
    return found


def write_lines(folder: Folder, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON objects, one a line, whole or not at all; only the last `LINES`."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines[-LINES:])
    folder.write_bytes(name, text.encode())
