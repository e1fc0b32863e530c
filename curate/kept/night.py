"""A night: one pool curated after all pools before it, which becomes a generation of the state."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from curate.errors import RequestError
from curate.features.contract import GlobalFeature
from curate.hashing import facts_hash
from curate.kept.state import ARTIFACTS, FORMAT, RunFact, State
from curate.recipe import NamedFilter, Recipe
from filters._memory import Decision, Past, RememberingFilter
from filters.contract import PoolFilter

if TYPE_CHECKING:
    from curate.curation import Measured

log = logging.getLogger(__name__)
Folders = Mapping[str, str]
"""Of columns, the folders of the features that measure them."""


def open_state(url: str, recipe: Recipe) -> State:
    """The state at a folder or URL, before anything is measured.

    Raises:
        RequestError: it is none, or its filters are not those of the recipe.
    """
    state = State(url)
    known = {column: feature.folder for feature in recipe.features if not isinstance(feature, GlobalFeature)
             for column in feature.columns()}  # fmt: skip
    check_filters(state, {step.name: filter_facts(step, known) for step in remembering(recipe)})
    warn_of_others(recipe)
    return state


def begin_night(state: State, recipe: Recipe, measured: Measured, request: dict[str, Any]) -> Night:
    """The night of a measured pool."""
    shards = {report.shard: report.digest for report in measured.reports}
    folders = {column: folder for folder, f in measured.tasks[0].features for column in f.columns()}
    return Night(state, recipe, request, shards, folders)


def with_artifacts(recipe: Recipe, state: State) -> Recipe:
    """The recipe whose fitted features are those of the first night, so that a cluster means the same every night."""
    paths = {feature.name: state.artifact(feature.name) for feature in _carried(recipe)}
    features = (
        feature.model_copy(update={"artifact": path}) if (path := paths.get(feature.name)) else feature
        for feature in recipe.features
    )
    return replace(recipe, features=tuple(features))


def _carried(recipe: Recipe) -> list[GlobalFeature]:
    """The features that filters which remember read, and that are fitted to a pool."""
    read = {column for step in remembering(recipe) for column in step.filter.reads}
    return [
        feature
        for feature in recipe.features
        if isinstance(feature, GlobalFeature) and feature.sample_rows and getattr(feature, "artifact", "") is None
        and read & set(feature.columns())
    ]  # fmt: skip


class Night:
    """What filters remember of the generations before one pool, and what they will of this one.

    Raises:
        RequestError: the pool, or some of it, was curated before, or a filter that remembers is another now; says
            which and what differs.
    """

    def __init__(self, state: State, recipe: Recipe, request: dict[str, Any], shards: dict[str, str], folders: Folders):
        self.state, self.recipe, self._shards = state, recipe, shards
        self.pool = str(request["pool_fingerprint"])
        self.night = facts_hash({name: request[name] for name in ("pool_fingerprint", "recipe_hash")})
        nights = [generation["night"] for generation in state.generations]
        self.number = nights.index(self.night) if self.night in nights else len(nights)
        self.published = self.number < len(nights)
        self._filters = {step.name: filter_facts(step, folders) for step in remembering(recipe)}
        self._runs: dict[str, list[RunFact]] = {}
        self.looked_at: dict[str, int] = {}
        if not self.published:
            self._check_shards()
            check_filters(state, self._filters)

    @property
    def request(self) -> dict[str, Any]:
        """What decides the dataset, beside the pool and the recipe."""
        return {"after": {"state": self.state.name or self.night, "generation": self.number}}

    def check_can_decide(self) -> None:
        """Refuse to decide again on a pool that others were curated after."""
        if self.number < len(self.state.generations) - 1:
            raise RequestError(
                f"--after: this pool is generation {self.number} of {self.state.folder.url}, and others came after it: "
                f"only the last one, generation {len(self.state.generations) - 1}, can be decided again"
            )

    def past(self, name: str) -> Past:
        """What a filter remembers."""
        self.check_can_decide()
        return self.state.past(self.number, name)

    def remember(self, name: str, decision: Decision) -> None:
        """Write what a filter remembers of this pool; it counts when the night is added."""
        self.looked_at[name] = decision.looked_at
        if not self.published:
            self._runs[name] = [self.state.write_run(name, run, self.night) for run in decision.remember()]

    def add(self, manifest: Mapping[str, Any], measured: Measured) -> None:
        """Make this pool a generation of the state, if it is none yet.

        Raises:
            WorkError: another one was added meanwhile.
        """
        if self.published:
            return
        if self.state.changed():
            raise self.state.taken()
        if not self.state.generations:
            cache = measured.tasks[0].cache
            for feature in _carried(self.recipe):
                artifact = cache.read_bytes(measured.artifacts[feature.name])
                self.state.folder.write_bytes(f"{ARTIFACTS}/{feature.name}.npz", artifact)
        before = self.state.generations[-1]["filters"] if self.state.generations else {}
        filters = {}
        for name, known in self._filters.items():
            runs = [RunFact(**fact) for fact in before.get(name, {"runs": []})["runs"]] + self._runs[name]
            runs = self.state.put_together(name, runs, self.night)
            filters[name] = known | {"runs": [vars(run) for run in runs]}
        facts = {
            "format": FORMAT, "number": self.number, "night": self.night, "curate": manifest["curate"],
            "pool": manifest["pool"]["url"], "samples": manifest["selection"]["rows"],
            "kept": manifest["selection"]["kept"], "name": manifest["name"], "filters": filters,
            "shards": dict(sorted(self._shards.items())),
        }  # fmt: skip
        self.state.publish(self.number, facts)
        self.published = True

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        before = self.state.generations[: self.number]
        return {
            "state": self.state.folder.url,
            "earlier_samples": sum(generation["samples"] for generation in before),
            "looked_at": self.looked_at,
        }

    def _check_shards(self) -> None:
        known = {digest: g["number"] for g in self.state.generations for digest in g["shards"].values()}
        again = {name: known[digest] for name, digest in self._shards.items() if digest in known}
        if again:
            name, number = min(again.items())
            raise RequestError(
                f"POOL: {len(again)} of its {len(self._shards)} shards are in {self.state.folder.url} already "
                f"({name} in generation {number}); give a pool of the new shards alone"
            )


def remembering(recipe: Recipe) -> list[NamedFilter]:
    """The recipe's filters that remember."""
    return [step for step in recipe.filters if isinstance(step.filter, RememberingFilter)]


def filter_facts(step: NamedFilter, folders: Folders) -> dict[str, Any]:
    """What a filter's memory depends on."""
    kind = type(step.filter)
    return {
        "filter": f"{kind.__module__}:{kind.__name__}",
        "parameters": step.filter.model_dump(mode="json", by_alias=True),
        "features": {column: folders[column] for column in step.filter.reads if column in folders},
    }


def check_filters(state: State, filters: Mapping[str, dict[str, Any]]) -> None:
    """Refuse filters whose memory would not be that of earlier nights."""
    if not state.generations:
        return
    known, where = state.generations[-1]["filters"], state.folder.url
    for name in known.keys() - filters.keys():
        raise RequestError(f"--after: {where} remembers for the filter {name}, which the recipe does not have")
    for name in filters.keys() - known.keys():
        raise RequestError(f"--after: the recipe's filter {name} is new: {where} remembers nothing for it")
    for name, facts in filters.items():
        for what in ("filter", "parameters", "features"):
            old, new = known[name][what], facts[what]
            if isinstance(new, str):
                different = [] if old == new else [(what, old, new)]
            else:
                different = [(key, old.get(key), value) for key, value in new.items() if old.get(key) != value]
            if different:
                key, was, value = different[0]
                said = f"{what}.{key}" if what != "filter" else what
                raise RequestError(
                    f"--after: {name}: {said} is {value!r}, and in {where} it is {was!r}; give a new state"
                )


def warn_of_others(recipe: Recipe) -> None:
    """Say which filters compare the samples of one night alone."""
    for step in recipe.filters:
        if (
            isinstance(step.filter, PoolFilter)
            and step.filter.compares
            and not isinstance(step.filter, RememberingFilter)
        ):
            log.warning("%s compares the samples of this pool alone: it remembers nothing of earlier ones", step.name)
