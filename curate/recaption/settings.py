"""The settings of recaptioning: a YAML file of their own, or `recaption:` in a recipe. docs/recaption.md lists them."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

import curate.recaption.backends
from curate.errors import RequestError
from curate.features.clip import Clip
from curate.features.contract import Feature, GlobalFeature
from curate.features.index import Index
from curate.hashing import facts_hash
from curate.plugins import find_class
from curate.recaption.candidates import Candidates, Dropped
from curate.recaption.check import DEFAULT, load_checks
from curate.recaption.contract import Backend, Check
from curate.recaption.expression import parse_condition
from curate.recipe import NamedFilter, Recipe, first_problem, implied_features

Choice = Literal["best", "ratio", "both", "replace"]


class Mix(BaseModel):
    """Which captions a candidate gets of its own and those written for it, where a written one passed every check.

    `best`: the one with the highest score, its own where they are equal (BLIP's CapFilt, Li et al. 2022,
    arXiv:2201.12086). `ratio`: the best written one for a share `ratio` of the candidates, drawn by uid and seed, its
    own for the others (Li et al. 2024, arXiv:2406.08478). `both`: all of them, among which training draws, a written
    one in a share `ratio` of the draws (as Fan et al. 2023, arXiv:2305.20088). `replace`: the best written one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    choice: Choice
    ratio: float = Field(0.5, ge=0, le=1)

    @property
    def facts(self) -> dict[str, Any]:
        """What of it has an effect."""
        return self.model_dump() if self.choice in ("ratio", "both") else {"choice": self.choice}


class SettingsFile(BaseModel):
    """The shape of the settings."""

    model_config = ConfigDict(extra="forbid")

    candidates: str | None = None
    dropped: Dropped | None = None
    features: dict[str, dict[str, Any] | None] = {}
    backend: dict[str, dict[str, Any] | None] = Field({"coca": {}}, min_length=1, max_length=1)
    prompts: list[str] | None = Field(None, min_length=1)
    samples_per_image: int = Field(1, ge=1, le=100)
    seed: int = Field(0, ge=0, lt=2**63)
    scorer: dict[str, Any] | None = None
    checks: list[str | dict[str, dict[str, Any] | None]] = list(DEFAULT)
    mix: dict[str, Any] = {}

    @field_validator("backend", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {value: {}} if isinstance(value, str) else value

    @field_validator("candidates")
    @classmethod
    def _condition(cls, value: str | None) -> str | None:
        if value is not None:
            parse_condition(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _scorer_is_the_clip(cls, raw: Any) -> Any:
        """The CLIP whose scores choose the candidates scores their captions too, unless another is named."""
        if isinstance(raw, dict) and "scorer" not in raw and isinstance(raw.get("features"), dict):
            clip = raw["features"].get("clip")
            return raw | {"scorer": clip} if isinstance(clip, dict) else raw
        return raw


@dataclass(frozen=True)
class Settings:
    """Checked settings."""

    candidates: str | None
    dropped: Dropped | None
    recipe: Recipe
    """No filters: the features that the candidates are told by."""
    backend: Backend
    prompts: tuple[str, ...]
    samples_per_image: int
    seed: int
    scorer: Clip | None
    checks: tuple[Check, ...]
    mix: Mix

    @cached_property
    def backend_facts(self) -> dict[str, Any]:
        """All that decides what the backend writes; taken once, since it may read large weights."""
        return {"name": self.backend_name, "version": self.backend.version, **self.backend.facts()}

    @property
    def backend_name(self) -> str:
        return getattr(type(self.backend), "name", type(self.backend).__name__.lower())

    @cached_property
    def backend_folder(self) -> str:
        """Where its answers lie in the cache, for example `coca-1f0c2b9a77de`."""
        return f"{''.join(c if c.isalnum() or c in '-_' else '-' for c in self.backend_name)}-{self.backend_hash}"

    @cached_property
    def backend_hash(self) -> str:
        return facts_hash(self.backend_facts)

    def as_dict(self) -> dict[str, Any]:
        """Every parameter spelled out, defaults too; no secrets."""
        return {
            "candidates": self.candidates,
            "dropped": self.dropped.model_dump(mode="json") if self.dropped else None,
            "features": {f.name: f.model_dump(mode="json", by_alias=True) for f in self.recipe.features},
            "backend": self.backend_facts,
            "prompts": list(self.prompts),
            "samples_per_image": self.samples_per_image,
            "seed": self.seed,
            "scorer": self.scorer.model_dump(mode="json") if self.scorer else None,
            "checks": [{check.name: check.model_dump(mode="json")} for check in self.checks],
            "mix": self.mix.facts,
        }

    @cached_property
    def hash(self) -> str:
        """12 hex digits over what decides the captions of a dataset."""
        facts = self.as_dict() | {"features": [feature.folder for feature in self.recipe.features]}
        return facts_hash(facts | {"scorer": self.scorer.folder if self.scorer else None})


def backend_names() -> list[str]:
    """The backends that come with curate: the files of `curate/recaption/backends/`."""
    found = (module.name for module in pkgutil.iter_modules(curate.recaption.backends.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def load_settings(file: str | None = None, changes: tuple[str, ...] = ()) -> Settings:
    """Read settings from a YAML file, with `path=value` changes applied; without a file the defaults.

    Raises:
        RequestError: it cannot be read, or the settings are wrong; names the field.
    """
    if file is None:
        return parse_settings({}, "recaption", changes)
    try:
        raw = yaml.safe_load(Path(file).read_text()) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"--recaption: {file}: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise RequestError(f"{file}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise RequestError(f"{file}: the settings are a mapping such as `backend:`, not a {type(raw).__name__}")
    if "recaption" in raw and isinstance(raw["recaption"], dict):
        raw = raw["recaption"]  # a recipe that has a stage of it
    folder = str(Path(file).resolve().parent)  # a user's own backend or check may lie beside the file
    if folder not in sys.path:
        sys.path.append(folder)
    return parse_settings(raw, file, changes)


def parse_settings(
    raw: dict[str, Any],
    source: str = "recaption",
    changes: tuple[str, ...] = (),
    features: dict[str, dict[str, Any]] | None = None,
) -> Settings:
    """Check settings given as plain data; see `load_settings`. `features` are parameters that a recipe gives to all."""
    if features:
        raw = raw | {"features": features | (raw.get("features") or {})}
    for change in changes:
        raw = changed(raw, change)
    try:
        file = SettingsFile.model_validate(raw)
    except ValidationError as error:
        raise RequestError(first_problem(source, "", error)) from error
    backend = _backend(source, *next(iter(file.backend.items())))
    scorer = _model(source, "scorer", Clip, file.scorer) if file.scorer is not None else None
    mix = _model(source, "mix", Mix, {"choice": "best" if scorer else "ratio"} | file.mix)
    if mix.choice == "best" and scorer is None:
        raise RequestError(
            f"{source}: mix.choice: best needs a scorer: scorer: {{model: FOLDER}}, or pretrained: TAG as features.clip"
        )
    return Settings(
        file.candidates,
        file.dropped,
        _recipe(source, file),
        backend,
        tuple(file.prompts or backend.default_prompts),
        file.samples_per_image,
        file.seed,
        scorer,
        load_checks(file.checks, f"{source}: checks"),
        mix,
    )


def _recipe(source: str, file: SettingsFile) -> Recipe:
    wanted = NamedFilter("candidates", Candidates(condition=file.candidates))
    parameters = {name: dict(values or {}) for name, values in file.features.items()}
    found = implied_features(source, parameters, (wanted,))
    return Recipe("recaption", "", _needed(found, wanted.filter.reads), ())


def _needed(features: Sequence[Feature], columns: Sequence[str]) -> tuple[Feature, ...]:
    """The features that have the columns, and those that they are fitted on: others are named for their parameters."""
    known = {column: feature for feature in reversed(features) for column in feature.columns()}
    wanted, names = list(columns), {Index.name}
    while wanted:
        feature = known[wanted.pop()]
        if feature.name not in names and isinstance(feature, GlobalFeature):
            wanted.extend(feature.reads)
        names.add(feature.name)
    return tuple(feature for feature in features if feature.name in names or feature.stands_in)


def _backend(source: str, name: str, parameters: dict[str, Any] | None) -> Backend:
    found = find_class(name, curate.recaption.backends.__name__, backend_names(), Backend, f"{source}: backend")
    made: Backend = _model(source, f"backend.{name}", found, parameters or {})
    return made


def _model(source: str, field: str, kind: type[BaseModel], values: dict[str, Any]) -> Any:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise RequestError(first_problem(source, field, error)) from error


def changed(raw: dict[str, Any], change: str, prefix: str = "") -> dict[str, Any]:
    """Plain settings with one `path=value` applied, such as `mix.ratio=0.3` or `checks.length.max_words=40`.

    >>> changed({"mix": {"choice": "ratio"}}, "mix.ratio=0.3")
    {'mix': {'choice': 'ratio', 'ratio': 0.3}}

    Raises:
        RequestError: it is no path and value.
    """
    path, equals, text = change.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts):
        raise RequestError(f"--set {prefix}{change}: write it as PATH=VALUE, such as {prefix}mix.ratio=0.3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RequestError(f"--set {prefix}{change}: not a YAML value: {error}") from error
    return _put(raw, parts, value, f"--set {prefix}{change}")


def _put(raw: Any, parts: list[str], value: Any, said: str) -> Any:
    """The settings with a value at a path; a list of steps is gone into by a step's name."""
    if not parts:
        return value
    name, rest = parts[0], parts[1:]
    if isinstance(raw, list):
        names = [step if isinstance(step, str) else next(iter(step), "") for step in raw]
        if name not in names:
            raise RequestError(f"{said}: there is no {name!r}; there are {', '.join(names)}")
        return [_step(step, name, rest, value, said) if n == name else step for step, n in zip(raw, names, strict=True)]
    if raw is None or isinstance(raw, str):  # a backend by its name alone
        raw = {raw: {}} if isinstance(raw, str) else {}
    if not isinstance(raw, dict):
        raise RequestError(f"{said}: {name!r} cannot be set in {raw!r}")
    if name == "checks" and name not in raw:
        raw = raw | {name: list(DEFAULT)}
    return raw | {name: _put(raw.get(name), rest, value, said)}


def _step(step: Any, name: str, rest: list[str], value: Any, said: str) -> Any:
    return {name: _put({} if isinstance(step, str) else step[name], rest, value, said)}
