"""Recipes: which filters in which order, and the features they imply, as YAML checked by pydantic."""

from __future__ import annotations

import pkgutil
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

import filters
from curate.errors import RequestError
from curate.features import column_owners, feature_class
from curate.features.contract import Feature, GlobalFeature
from curate.features.index import Index
from curate.hashing import facts_hash
from curate.plugins import find_class
from filters.contract import Filter

if TYPE_CHECKING:
    from curate.recaption.settings import Settings

DEFAULT = "default"


class RecipeFile(BaseModel):
    """The shape of a recipe file."""

    model_config = ConfigDict(extra="forbid")

    name: str = "recipe"
    description: str = ""
    features: dict[str, dict[str, Any] | None] = {}
    recaption: dict[str, Any] | None = None
    filters: list[str | dict[str, dict[str, Any] | None]] = []


@dataclass(frozen=True)
class NamedFilter:
    """A filter and the name it goes by in the selection; a second one of a kind is `clip_score#2`."""

    name: str
    filter: Filter


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. `features` has all that its filters read, each once, `index` first."""

    name: str
    description: str
    features: tuple[Feature, ...]
    filters: tuple[NamedFilter, ...]
    recaption: Settings | None = None
    """The captions that are written before the first filter, if any."""

    def as_dict(self) -> dict[str, Any]:
        """Every parameter spelled out, defaults too."""
        facts = {
            "name": self.name,
            "features": {f.name: f.model_dump(mode="json", by_alias=True) for f in self.features},
            "filters": [{f.name: f.filter.model_dump(mode="json", by_alias=True)} for f in self.filters],
        }
        return facts | ({"recaption": self.recaption.as_dict()} if self.recaption else {})

    @property
    def hash(self) -> str:
        """12 hex digits over what decides the selection: filters, parameters and feature fingerprints."""
        facts = self.as_dict() | {"name": "", "features": [feature.folder for feature in self.features]}
        return facts_hash(facts | ({"recaption": self.recaption.hash} if self.recaption else {}))


def builtin_filters() -> list[str]:
    """The filters that come with curate, by name."""
    found = (module.name for module in pkgutil.iter_modules(filters.__path__))
    return sorted(name for name in found if name != "contract" and not name.startswith("_"))


def builtin_recipes() -> dict[str, str]:
    """The recipes that come with curate: name to YAML text."""
    folder = files("curate") / "recipes"
    return {f.name.removesuffix(".yaml"): f.read_text() for f in folder.iterdir() if f.name.endswith(".yaml")}


def load_recipe(source: str | None = None, changes: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe from a YAML file or by the name of a built-in one, with `path=value` changes applied.

    >>> load_recipe("default", ("image_size.min_side=32",)).filters[0].filter.min_side
    32

    Raises:
        RequestError: it cannot be read, or is not a valid recipe; names the field.
    """
    source = source or DEFAULT
    builtin = builtin_recipes()
    if source in builtin:
        text = builtin[source]
    elif Path(source).is_file():
        text = Path(source).read_text()
        folder = str(Path(source).resolve().parent)  # a user's own filter may lie beside the recipe
        if folder not in sys.path:
            sys.path.append(folder)
    else:
        known = ", ".join(sorted(builtin))
        raise RequestError(f"--recipe: no file {source!r}, nor a built-in recipe of that name ({known})")
    try:
        raw = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise RequestError(f"{source}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise RequestError(f"{source}: a recipe is a mapping with `filters:`, not a {type(raw).__name__}")
    return parse_recipe(raw, source, changes)


def parse_recipe(raw: dict[str, Any], source: str = "recipe", changes: tuple[str, ...] = ()) -> Recipe:
    """Check a recipe given as plain data; see `load_recipe`."""
    try:
        file = RecipeFile.model_validate(raw)
    except ValidationError as error:
        raise RequestError(first_problem(source, "", error)) from error
    steps = [_step(source, number, step) for number, step in enumerate(file.filters)]
    parameters = {name: dict(values or {}) for name, values in file.features.items()}
    ours = tuple(change for change in changes if change.startswith("recaption."))
    for change in changes:
        if change not in ours:
            _apply(change, steps, parameters)
    named = [_filter(source, number, *step) for number, step in enumerate(steps)]
    labels = [name if (n := [s[0] for s in steps[:i]].count(name)) == 0 else f"{name}#{n + 1}"
              for i, (name, _) in enumerate(steps)]  # fmt: skip
    chosen = tuple(NamedFilter(label, found) for label, found in zip(labels, named, strict=True))
    features = implied_features(source, parameters, chosen)
    return Recipe(file.name, file.description, features, chosen, _recaption(source, file, parameters, ours))


def _recaption(
    source: str, file: RecipeFile, parameters: dict[str, dict[str, Any]], changes: tuple[str, ...]
) -> Settings | None:
    """The settings of recaptioning, which knows the recipe's parameters of features."""
    if file.recaption is None:
        if changes:
            raise RequestError(f"--set {changes[0]}: the recipe has no `recaption`")
        return None
    from curate.recaption.settings import parse_settings

    ours = tuple(change.removeprefix("recaption.") for change in changes)
    return parse_settings(file.recaption, f"{source}: recaption", ours, parameters)


def _step(source: str, number: int, step: str | dict[str, dict[str, Any] | None]) -> tuple[str, dict[str, Any]]:
    if isinstance(step, str):
        return step, {}
    if len(step) != 1:
        raise RequestError(f"{source}: filters[{number}]: one filter per list item, not {', '.join(step) or 'none'}")
    ((name, parameters),) = step.items()
    return name, dict(parameters or {})


def _apply(change: str, steps: list[tuple[str, dict[str, Any]]], features: dict[str, dict[str, Any]]) -> None:
    path, equals, value = change.partition("=")
    parts = path.split(".")
    if not equals or len(parts) not in (2, 3):
        raise RequestError(f"--set {change}: write it as FILTER.PARAMETER=VALUE or features.FEATURE.PARAMETER=VALUE")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RequestError(f"--set {change}: not a YAML value: {error}") from error
    if parts[0] == "features":
        features.setdefault(parts[1], {})[parts[-1]] = parsed
        return
    for name, parameters in steps:
        if name == parts[-2]:
            parameters[parts[-1]] = parsed
            return
    names = ", ".join(name for name, _ in steps) or "no filters"
    raise RequestError(f"--set {change}: the recipe has no filter {parts[-2]!r}; it has {names}")


def _filter(source: str, number: int, name: str, parameters: dict[str, Any]) -> Filter:
    where = f"{source}: filters[{number}]"
    found = find_class(name, filters.__name__, builtin_filters(), Filter, where)
    try:
        return found.model_validate(parameters)
    except ValidationError as error:
        raise RequestError(first_problem(source, f"filters[{number}].{name}", error)) from error


def implied_features(
    source: str, parameters: dict[str, dict[str, Any]], chosen: tuple[NamedFilter, ...]
) -> tuple[Feature, ...]:
    """The features that the filters read, with the recipe's parameters, and any named that is a user's own."""
    owners = column_owners() | _named_columns(source, parameters)
    wanted = dict.fromkeys(parameters)
    for step in chosen:
        _take_over(source, parameters, step)
        for column in step.filter.reads:
            if column not in owners:
                raise RequestError(f"{source}: filter {step.name} reads {column!r}, which no feature measures")
            wanted[owners[column]] = None
    found: list[Feature] = []
    waiting = list(wanted)
    while waiting:
        name = waiting.pop(0)
        found.append(_feature(source, name, parameters.get(name, {})))
        if isinstance(feature := found[-1], GlobalFeature):
            for column in feature.reads:
                if column not in owners:
                    raise RequestError(f"{source}: features.{name} reads {column!r}, which no feature measures")
                if owners[column] not in wanted:
                    wanted[owners[column]] = None
                    waiting.append(owners[column])
    others = sorted((f for f in found if f.name != Index.name), key=lambda feature: feature.name)
    return (Index(), *others)


def _feature(source: str, name: str, values: dict[str, Any]) -> Feature:
    try:
        return feature_class(name).model_validate(values)
    except ValidationError as error:
        raise RequestError(first_problem(source, f"features.{name}", error)) from error


def _named_columns(source: str, parameters: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The columns of a user's own features, and those that a feature has only with the recipe's parameters."""
    owners: dict[str, str] = {}
    for name in parameters:
        feature = _feature(source, name, parameters[name])
        for column in feature.columns() if ":" in name or not feature.stands_in else ():
            owner = (column_owners() | owners).get(column, name)
            if ":" not in name and owner != name:
                raise RequestError(f"{source}: features.{name}: {owner} has a column {column!r} already; rename it")
            owners[column] = name
    return owners


def _take_over(source: str, parameters: dict[str, dict[str, Any]], step: NamedFilter) -> None:
    """Put the parameters of features that a filter sets to those that the recipe names."""
    for feature, values in step.filter.sets.items():
        named = parameters.setdefault(feature, {})
        for name, value in values.items():
            if named.setdefault(name, value) != value:
                raise RequestError(
                    f"{source}: filter {step.name} wants features.{feature}.{name} to be {value!r}, and the recipe or "
                    f"another filter says {named[name]!r}; there is one {feature} for all"
                )


def first_problem(source: str, where: str, error: ValidationError) -> str:
    """The first thing that is wrong with what a user wrote, with its place, in a line."""
    problem = error.errors()[0]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
    place = (where + field).lstrip(".")
    said = problem["msg"].removeprefix("Value error, ")
    given = "" if problem["type"] in ("missing", "value_error") else f" (given {problem['input']!r})"
    return f"{source}: {place}: {said}{given}"
