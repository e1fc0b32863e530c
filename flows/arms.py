"""The arms of an experiment: each one's recipe, with decontamination first; and the controls that nobody asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from curate.errors import RequestError
from curate.pool import open_pool
from curate.recipe import Recipe, builtin_recipes, load_recipe, parse_recipe
from flows.bootstrap import replace_filters
from flows.evaluation_images import task_fingerprint
from flows.experiment import BASE, NO_FILTER, ArmFile, Experiment
from flows.training import make_setup

DECONTAMINATION = "decontamination"
RANDOM_TOLERANCE = 0.05
"""Arms whose sizes differ by less share a random control."""
Role = Literal["arm", "control"]


@dataclasses.dataclass(frozen=True)
class Arm:
    """An arm before it is decided: its recipe, and the filter it is about, if it is about one."""

    name: str
    recipe: Recipe
    role: Role = "arm"
    filter: str | None = None

    @property
    def slug(self) -> str:
        """A folder's name: no two arms of an experiment may share it."""
        return "".join(c if c.isalnum() or c in "._=" else "-" for c in self.name)


def plan_arms(experiment: Experiment, evaluation: Sequence[str]) -> list[Arm]:
    """The arms that are asked for, and the control without a filter; the baseline first.

    Args:
        evaluation: shards of the tasks' images, which no arm may train on.

    Raises:
        RequestError: a recipe, a change or a filter's name is wrong, or two arms share a name.
    """
    planner = _Planner(experiment, evaluation)
    arms = list(planner.arms())
    if NO_FILTER in experiment.controls or experiment.compared_with == NO_FILTER:
        arms.insert(0, planner.arm(NO_FILTER, {"filters": []}, role="control"))
    names = [arm.name for arm in arms]
    if experiment.compared_with not in names:
        raise RequestError(f"baseline: no arm {experiment.compared_with!r}; there are {', '.join(names)}")
    slugs = [arm.slug for arm in arms]
    if len(set(slugs)) < len(slugs):
        raise RequestError("arms: two of them have the same name, but for signs that no folder can have")
    return sorted(arms, key=lambda arm: arm.name != experiment.compared_with)


def check(experiment: Experiment) -> None:
    """Find what is wrong with an experiment before anything is run.

    Raises:
        RequestError: its pool, a task, an arm, its family or its scale is wrong; names the field.
    """
    open_pool(experiment.pool, experiment.cache)
    for task in experiment.tasks:
        task_fingerprint(task)
    plan_arms(experiment, experiment.tasks)
    make_setup(experiment.family, experiment.scale, experiment.tasks, "")


def random_arms(sizes: Mapping[str, int], whole: int, experiment: Experiment, evaluation: Sequence[str]) -> list[Arm]:
    """Random subsets of the sizes of the arms, one for arms of about the same size; none where an arm is the whole.

    Args:
        sizes: how many samples each arm kept.
        whole: how many there are without a filter.
    """
    if "random" not in experiment.controls:
        return []
    if experiment.mode in ("leave-one-out", "scaling"):
        sizes = {name: size for name, size in sizes.items() if name == BASE}
    planner, found = _Planner(experiment, evaluation), dict[int, Arm]()
    for size in sizes.values():
        near = any(abs(size - other) <= RANDOM_TOLERANCE * other for other in (*found, whole))
        if size and not near:
            recipe = {"filters": [{"random_subset": {"count": size}}]}
            found[size] = planner.arm(f"random {size}", recipe, role="control")
    return list(found.values())


def random_control(size: int, controls: Mapping[str, int]) -> str | None:
    """The random subset that an arm of `size` is to be held against: the one nearest in size, if it is near."""
    near = [name for name, other in controls.items() if abs(size - other) <= RANDOM_TOLERANCE * other]
    return min(near, key=lambda name: abs(controls[name] - size)) if near else None


@dataclasses.dataclass(frozen=True)
class _Planner:
    experiment: Experiment
    evaluation: Sequence[str]

    def arms(self) -> Iterator[Arm]:
        asked = self.experiment
        base = _raw(asked.recipe)
        if asked.mode == "arms":
            for name, file in asked.arms.items():
                yield self._changed(name, file, base)
        elif asked.mode == "sweep":
            assert asked.sweep is not None
            for value in asked.sweep.values:
                change = f"{asked.sweep.parameter}={yaml.safe_dump(value, default_flow_style=True).split(chr(10))[0]}"
                yield self.arm(f"{asked.sweep.parameter}={value}", base, (change,))
        else:
            yield self.arm(BASE, base)
            for name in self._tried(base) if asked.mode != "scaling" else ():
                if asked.mode == "leave-one-out":
                    yield self.arm(f"without {name}", _without(base, (name,)), filter=name)
                else:
                    others = tuple(other for other in _names(base) if other != name)
                    yield self.arm(f"only {name}", _without(base, others), filter=name)

    def arm(
        self,
        name: str,
        raw: dict[str, Any],
        changes: tuple[str, ...] = (),
        role: Role = "arm",
        filter: str | None = None,
    ) -> Arm:
        """An arm whose recipe begins with decontamination against all evaluation images."""
        steps = list(raw.get("filters") or [])
        own: dict[str, Any] = next((s for s in steps if isinstance(s, dict) and DECONTAMINATION in s), {})
        asked = self.experiment.decontaminate if isinstance(self.experiment.decontaminate, dict) else {}
        parameters: dict[str, Any] = (own.get(DECONTAMINATION) or {}) | asked
        theirs = parameters.get("against", [])
        against = [*([theirs] if isinstance(theirs, str) else theirs), *self.evaluation]
        first = {DECONTAMINATION: parameters | {"against": list(dict.fromkeys(against))}}
        rest = [step for step in steps if step is not own]
        whole = {**raw, "name": name, "filters": [first, *rest]}
        recipe = parse_recipe(whole, f"arm {name!r}", changes)
        return Arm(name, replace_filters(recipe, recipe.filters), role, filter)  # measures only what is read

    def _changed(self, name: str, file: ArmFile, base: dict[str, Any]) -> Arm:
        raw = base if file.recipe is None else _raw(file.recipe)
        return self.arm(name, _without(raw, file.without), file.set)

    def _tried(self, base: dict[str, Any]) -> list[str]:
        there = [name for name in _names(base) if name != DECONTAMINATION]
        if unknown := [name for name in self.experiment.filters if name not in there]:
            raise RequestError(f"filters: the recipe has no {unknown[0]!r}; it has {', '.join(there) or 'none'}")
        return list(self.experiment.filters) or there


def _raw(recipe: str | dict[str, Any]) -> dict[str, Any]:
    """A recipe as plain data, checked."""
    if isinstance(recipe, dict):
        parse_recipe(recipe, "recipe")
        return recipe
    load_recipe(recipe)
    text = builtin_recipes().get(recipe) or Path(recipe).read_text()
    found: dict[str, Any] = yaml.safe_load(text) or {}
    return found


def _names(raw: dict[str, Any]) -> list[str]:
    """What each filter goes by; a second one of a kind is `clip_score#2`."""
    kinds = [step if isinstance(step, str) else next(iter(step)) for step in raw.get("filters") or []]
    return [kind if (n := kinds[:i].count(kind)) == 0 else f"{kind}#{n + 1}" for i, kind in enumerate(kinds)]


def _without(raw: dict[str, Any], left_out: Sequence[str]) -> dict[str, Any]:
    names = _names(raw)
    if unknown := [name for name in left_out if name not in names]:
        raise RequestError(f"without: the recipe has no filter {unknown[0]!r}; it has {', '.join(names) or 'none'}")
    steps = [step for name, step in zip(names, raw.get("filters") or [], strict=True) if name not in left_out]
    return {**raw, "filters": steps}
