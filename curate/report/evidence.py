"""Reads OUT/evidence.json and OUT/defects.json, which others write; docs/report.md defines them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from curate.report.words import points, tidy
from curate.storage import Folder

EVIDENCE = "evidence.json"
DEFECTS = "defects.json"


@dataclass(frozen=True)
class Arm:
    """One arm of an experiment: accuracies 0 to 1; an interval that is not known is None."""

    name: str
    accuracy: float
    interval: tuple[float, float] | None
    samples: int | None
    samples_seen: int | None
    seeds: int | None
    per_seed: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """How arm `b` does against arm `a`: b - a."""

    a: str
    b: str
    difference: float
    interval: tuple[float, float] | None
    verdict: str

    @property
    def words(self) -> str:
        """The comparison as a sentence."""
        span = ""
        if self.interval:
            span = f" (95 % interval {points(self.interval[0])} to {points(self.interval[1])})"
        gap = f"{points(self.difference)} points{span}"
        if self.verdict == "undecided":
            return f"Undecided whether {self.b} differs from {self.a}: {gap}; this experiment cannot tell."
        if self.verdict == "no effect":
            return f"{self.b} does as {self.a} does: {gap}, too little to matter."
        return f"{self.b} is {self.verdict} than {self.a}: {gap}."


@dataclass(frozen=True)
class Evidence:
    """An experiment: what was evaluated, its arms and how they compare."""

    task: str
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    chance: float | None = None

    @property
    def headline(self) -> str:
        """The arm that the experiment is about: `b` of the first comparison, else the last arm."""
        return self.comparisons[0].b if self.comparisons else self.arms[-1].name

    @property
    def scale(self) -> float:
        """The accuracy at the right end of the bars."""
        tops = [top for arm in self.arms for top in (arm.accuracy, *(arm.interval or ()), *arm.per_seed)]
        return min(1.0, 1.1 * max([*tops, self.chance or 0.0, 0.01]))


@dataclass(frozen=True)
class Defect:
    """A kind of planted defect: planted = caught_at_download + caught + missed."""

    defect: str
    planted: int
    caught_at_download: int
    caught: int
    missed: int
    by: tuple[tuple[str, int], ...]

    @property
    def arrived(self) -> int:
        return self.caught + self.missed


@dataclass(frozen=True)
class Planted:
    """All planted defects, and the good samples that were lost."""

    defects: tuple[Defect, ...]
    good: int | None = None
    lost: int | None = None
    lost_by: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def caught(self) -> int:
        return sum(defect.caught for defect in self.defects)

    @property
    def arrived(self) -> int:
        return sum(defect.arrived for defect in self.defects)


def read_evidence(out: Folder) -> tuple[list[Evidence], list[str]]:
    """The experiments beside a dataset, and what is wrong with their file."""
    raw, problems = _read(out, EVIDENCE)
    try:
        found = [_experiment(item) for item in (raw if isinstance(raw, list) else [raw] if raw else [])]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [], [f"{EVIDENCE} is not as docs/report.md says: {type(error).__name__} {tidy(str(error))}"]
    return found, problems


def read_planted(out: Folder) -> tuple[Planted | None, list[str]]:
    """The planted defects of a demo beside a dataset, and what is wrong with their file."""
    raw, problems = _read(out, DEFECTS)
    if raw is None:
        return None, problems
    try:
        return _planted(raw), problems
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return None, [f"{DEFECTS} is not as docs/report.md says: {type(error).__name__} {tidy(str(error))}"]


def _read(out: Folder, name: str) -> tuple[Any, list[str]]:
    if not out.exists(name):
        return None, []
    try:
        return out.read_json(name), []
    except json.JSONDecodeError as error:
        return None, [f"{name} is not JSON: {error}"]


def _experiment(raw: dict[str, Any]) -> Evidence:
    arms = tuple(_arm(arm) for arm in raw["arms"])
    if not arms:
        raise ValueError("it has no arms")
    comparisons = tuple(
        Comparison(tidy(str(c["a"])), tidy(str(c["b"])), float(c["difference"]), _interval(c.get("interval")),
                   str(c.get("verdict", "undecided")))
        for c in raw.get("comparisons", [])
    )  # fmt: skip
    return Evidence(
        tidy(str(raw.get("task", "evaluation"))),
        arms,
        comparisons,
        _notes(raw),
        None if raw.get("chance") is None else float(raw["chance"]),
    )


def _arm(raw: dict[str, Any]) -> Arm:
    per_seed = tuple(float(value) for value in raw.get("per_seed") or ())
    seeds = raw.get("seeds")
    return Arm(
        tidy(str(raw["name"])),
        float(raw["accuracy"]),
        _interval(raw.get("interval")),
        raw.get("samples"),
        raw.get("samples_seen"),
        len(seeds) if isinstance(seeds, list) else seeds if seeds is not None else len(per_seed) or None,
        per_seed,
    )


def _interval(raw: Any) -> tuple[float, float] | None:
    """Bounds; None where they are missing or infinite, as those of a single seed are."""
    if not raw or any(bound is None or not math.isfinite(bound) for bound in raw):
        return None
    return float(raw[0]), float(raw[1])


def _planted(raw: Any) -> Planted:
    """Takes the file as docs/report.md defines it, or a bare list of defects."""
    items = raw if isinstance(raw, list) else raw["defects"]
    good = {} if isinstance(raw, list) else raw.get("good_lost") or {}
    defects = []
    for item in items:
        caught, missed = int(item["caught"]), int(item["missed"])
        at_download = item.get("caught_at_download", item.get("at_download", 0))
        planted = int(item.get("planted", caught + missed + at_download))
        defects.append(Defect(tidy(str(item["defect"])), planted, int(at_download), caught, missed,
                              _by(item.get("by", item.get("by_filter")))))  # fmt: skip
    lost = good.get("count")
    notes = () if isinstance(raw, list) else _notes(raw)
    return Planted(tuple(defects), good.get("of"), lost, _by(good.get("by")), notes)


def _by(raw: dict[str, Any] | None) -> tuple[tuple[str, int], ...]:
    pairs = [(tidy(str(name)), int(n)) for name, n in (raw or {}).items()]
    return tuple(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def _notes(raw: dict[str, Any]) -> tuple[str, ...]:
    notes = raw.get("notes") or []
    return tuple(tidy(str(note), 600) for note in ([notes] if isinstance(notes, str) else notes))
