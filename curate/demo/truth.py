"""Compares a selection with the planted truth: what was caught, missed, and lost for nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from curate.demo.plan import COPIES, DEFECTS, NONE
from curate.errors import WorkError

Sample = tuple[str, str]  # shard name without ending, key


@dataclass(frozen=True, slots=True)
class DefectScore:
    """One kind of defect. planted = at_download + caught + missed."""

    defect: str
    planted: int  # on the mini-web
    at_download: int  # never arrived in the pool
    caught: int  # arrived and was dropped; for copies see TruthScore.groups
    missed: int  # arrived and was kept
    by_filter: Mapping[str, int] = field(default_factory=dict)  # of the caught: filter -> samples

    @property
    def recall(self) -> float | None:
        """Share of the arrived that was caught, 0 to 1; None if none arrived."""
        arrived = self.caught + self.missed
        return self.caught / arrived if arrived else None


@dataclass(frozen=True, slots=True)
class TruthScore:
    """How a selection agrees with the truth.

    A group is an original and its copies that arrived, two or more; it is right if exactly one member was
    kept, whichever. A copy counts as caught if it was dropped, or if it was kept in its original's place. A
    clean sample is lost if it was dropped, unless it is the original of a group of which a copy was kept.
    """

    defects: tuple[DefectScore, ...]
    clean: int  # clean samples that arrived
    clean_kept: int  # of those: kept, or replaced by one kept copy
    clean_lost: int
    lost_by_filter: Mapping[str, int]  # of the lost: filter -> samples
    groups: int
    groups_right: int  # exactly one member kept
    groups_all_dropped: int
    groups_several_kept: int

    @property
    def precision(self) -> float | None:
        """Share of the samples dropped that deserved it, 0 to 1; None if nothing was dropped."""
        caught = sum(score.caught for score in self.defects)
        return caught / (caught + self.clean_lost) if caught + self.clean_lost else None


def pool_urls(pool: Path) -> dict[Sample, str]:
    """(shard, key) -> image address of every sample in a pool that `curate download` made."""
    urls: dict[Sample, str] = {}
    for path in sorted(pool.glob("[0-9]*.parquet")):
        columns = pq.read_table(path, columns=["key", "url", "status"]).to_pydict()
        for key, url, status in zip(*columns.values(), strict=True):
            if status == "success":
                urls[path.stem, key] = url
    return urls


def score_selection(selection: pa.Table, urls: Mapping[Sample, str], truth: pa.Table) -> TruthScore:
    """Scores a selection (columns shard, key, keep, filter) of a pool whose samples came from `urls`.

    Image addresses are matched with the truth by their path, because the server's port changes. Raises
    WorkError for a sample of the selection that is not in `urls`, or whose image is not in the truth.
    """
    verdicts = _verdicts(selection, urls)
    rows = truth.select(["path", "defect", "copy_of"]).to_pylist()
    unknown = set(verdicts) - {row["path"] for row in rows}
    if unknown:
        raise WorkError(f"{len(unknown)} samples are not in the truth, such as {sorted(unknown)[0]}")
    groups = _groups(rows, verdicts)
    survivors = {original: _survivor(members, verdicts) for original, members in groups.items()}
    kept_instead = {original: survivor for original, survivor in survivors.items() if survivor not in (None, original)}
    scores = tuple(
        _score(defect, [row for row in rows if row["defect"] == defect], verdicts, set(kept_instead.values()))
        for defect in DEFECTS
        if defect != NONE and any(row["defect"] == defect for row in rows)
    )
    arrived = [row["path"] for row in rows if row["defect"] == NONE and row["path"] in verdicts]
    lost = [path for path in arrived if verdicts[path] is not None and path not in kept_instead]
    kept = Counter(sum(verdicts[path] is None for path in members) for members in groups.values())
    return TruthScore(
        defects=scores,
        clean=len(arrived),
        clean_kept=len(arrived) - len(lost),
        clean_lost=len(lost),
        lost_by_filter=_count(verdicts[path] for path in lost),
        groups=len(groups),
        groups_right=kept[1],
        groups_all_dropped=kept[0],
        groups_several_kept=sum(count for members, count in kept.items() if members > 1),
    )


def _verdicts(selection: pa.Table, urls: Mapping[Sample, str]) -> dict[str, str | None]:
    """URL path -> None if kept, else the filter that dropped it."""
    verdicts: dict[str, str | None] = {}
    for row in selection.select(["shard", "key", "keep", "filter"]).to_pylist():
        sample = (Path(row["shard"]).name.removesuffix(".tar"), row["key"])
        if sample not in urls:
            raise WorkError(f"the selection's sample {row['key']} of shard {row['shard']} is not in the pool")
        verdicts[urlsplit(urls[sample]).path] = None if row["keep"] else (row["filter"] or "unknown")
    return verdicts


def _groups(rows: Iterable[Mapping[str, str | None]], verdicts: Mapping[str, str | None]) -> dict[str, list[str]]:
    """Original -> its members that arrived, for groups of two or more of them."""
    members: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        path, original = row["path"], row["copy_of"]
        if path is not None and original is not None and path in verdicts:
            members[original].append(path)
    for original, copies in members.items():
        if original in verdicts:
            copies.insert(0, original)
    return {original: found for original, found in members.items() if len(found) > 1}


def _survivor(members: list[str], verdicts: Mapping[str, str | None]) -> str | None:
    """The member that stands for the group: the first that was kept."""
    return next((path for path in members if verdicts[path] is None), None)


def _score(
    defect: str,
    rows: list[Mapping[str, str | None]],
    verdicts: Mapping[str, str | None],
    kept_instead: set[str | None],
) -> DefectScore:
    paths = [row["path"] for row in rows]
    arrived = [path for path in paths if path is not None and path in verdicts]
    dropped = [path for path in arrived if verdicts[path] is not None]
    replacing = [path for path in arrived if defect in COPIES and path in kept_instead]
    caught = len(dropped) + len(replacing)
    return DefectScore(
        defect=defect,
        planted=len(paths),
        at_download=len(paths) - len(arrived),
        caught=caught,
        missed=len(arrived) - caught,
        by_filter=_count(verdicts[path] for path in dropped),
    )


def _count(filters: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(name for name in filters if name is not None).most_common())
