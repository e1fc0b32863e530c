"""The state of nightly curation: a folder of generations, one for each pool that was curated into it.

    STATE/generations/00003.json    what was curated: the pool, its shards' digests, the recipe, and of each filter
                                    that remembers, its parameters and the runs of all rows up to then
    STATE/runs/FILTER/…/            runs of rows, put together when there are many
    STATE/artifacts/FEATURE.npz     what the first pool's features were fitted to, such as the centroids of clusters

A generation appears whole, or not at all, and only once. The last two can be read: the last, and, to curate the last
pool once more, the one before it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.errors import RequestError, WorkError
from curate.kept.runs import open_run, write_run
from curate.storage import Folder
from filters._memory import MOST_ROWS, Past, Run, merged

FORMAT = 1
GENERATIONS, RUNS, ARTIFACTS = "generations", "runs", "artifacts"
TOGETHER = 4
"""So many runs of about one size become one."""


@dataclass(frozen=True)
class RunFact:
    """A run of a filter's rows and where it lies in the state."""

    name: str
    first: int
    rows: int


class State:
    """The generations at a folder or URL; none where nothing is there yet.

    Raises:
        RequestError: the folder holds something else, or a state of another format.
    """

    def __init__(self, url: str) -> None:
        self.folder = Folder(url)
        self._scratch = tempfile.TemporaryDirectory(prefix="curate-state-")
        self.generations = self._read()

    @property
    def name(self) -> str | None:
        """What the state is known by, wherever it lies: its first generation's night."""
        return self.generations[0]["night"] if self.generations else None

    def past(self, count: int, name: str) -> Past:
        """What a filter remembers of the first `count` generations."""
        if count == 0:
            return Past()
        facts = self.generations[count - 1]["filters"].get(name, {"runs": []})
        return Past(tuple(self.run(name, RunFact(**fact)) for fact in facts["runs"]))

    def run(self, name: str, fact: RunFact) -> Run:
        """Open a run of a filter."""
        return open_run(self._run_folder(name, fact.name), Path(self._scratch.name) / name)

    def write_run(self, name: str, run: Run, night: str) -> RunFact:
        """Write a run of a filter; it belongs to no generation yet."""
        fact = RunFact(f"{run.first}-{run.first + run.rows}-{night}", run.first, run.rows)
        write_run(self._run_folder(name, fact.name), run)
        return fact

    def artifact(self, feature: str) -> str | None:
        """A local path of what a feature was fitted to for the first pool; None if there is none, or no generation."""
        name = f"{ARTIFACTS}/{feature}.npz"
        if not self.generations or not self.folder.exists(name):
            return None
        if self.folder.is_local:
            return self.folder.path(name)
        copy = Path(self._scratch.name) / name
        copy.parent.mkdir(exist_ok=True)
        self.folder.fs.get_file(self.folder.path(name), str(copy))
        return str(copy)

    def put_together(self, name: str, runs: Sequence[RunFact], night: str) -> list[RunFact]:
        """The runs of a filter, where several of about one size follow each other as one."""
        found = list(runs)
        while len(found) >= TOGETHER:
            last = found[-TOGETHER:]
            if last[0].rows >= TOGETHER * max(1, last[-1].rows) or sum(fact.rows for fact in last) > MOST_ROWS:
                break
            found[-TOGETHER:] = [self.write_run(name, merged([self.run(name, fact) for fact in last]), night)]
        return found

    def publish(self, number: int, facts: Mapping[str, Any]) -> None:
        """Add a generation, and remove the runs that none of the last two needs.

        Raises:
            WorkError: there is a generation of that number.
        """
        try:
            self.folder.create_json(f"{GENERATIONS}/{number:05d}.json", facts)
        except FileExistsError:
            raise self.taken() from None
        self.generations = self._read()
        self._remove_unused()

    def taken(self) -> WorkError:
        """What a night is told that comes too late."""
        return WorkError(f"--after: another night was added to {self.folder.url} meanwhile; run the same command again")

    def changed(self) -> bool:
        """Whether another night was added since this was opened."""
        return len(self._names()) != len(self.generations)

    def _remove_unused(self) -> None:
        used = {
            (name, run["name"])
            for generation in self.generations[-2:]
            for name, facts in generation["filters"].items()
            for run in facts["runs"]
        }
        fs = self.folder.fs
        for of_filter in self._listed(RUNS):
            for run in self._listed(f"{RUNS}/{of_filter}"):
                if (of_filter, run) not in used:
                    fs.rm(self.folder.path(f"{RUNS}/{of_filter}/{run}"), recursive=True)

    def _run_folder(self, name: str, run: str) -> Folder:
        return self.folder / RUNS / name / run

    def _listed(self, name: str) -> list[str]:
        if not self.folder.exists(name):
            return []
        self.folder.fs.invalidate_cache()
        return sorted(Path(path).name for path in self.folder.fs.ls(self.folder.path(name), detail=False))

    def _names(self) -> list[str]:
        return [name for name in self._listed(GENERATIONS) if name.endswith(".json") and not name.startswith(".")]

    def _read(self) -> list[dict[str, Any]]:
        where = self.folder.url
        if self.folder.exists() and self.folder.fs.isfile(self.folder.root):
            raise RequestError(f"--after: {where} is a file; give a folder")
        names = self._names()
        if not names and set(self._listed("")) - {GENERATIONS, RUNS, ARTIFACTS}:
            raise RequestError(
                f"--after: {where} holds other files and no state; give a new folder, or that of a state"
            )
        found = [self.folder.read_json(f"{GENERATIONS}/{name}") for name in names]
        for number, generation in enumerate(found):
            if generation.get("format") != FORMAT or generation.get("number") != number:
                raise RequestError(f"--after: {where}: {GENERATIONS}/{names[number]} is not of a state of this version")
        return found

    def close(self) -> None:
        """Give back what was copied here."""
        self._scratch.cleanup()
