"""`experiment.yaml`: which arms an ablation has, and what is done with each. docs/ablate.md describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from curate.errors import RequestError

Mode = Literal["arms", "leave-one-out", "add-one-in", "sweep", "scaling"]
NO_FILTER = "no filter"
BASE = "recipe"
BASE_OF: dict[str, str] = {"leave-one-out": BASE}
"""The arm that others are compared with, where it is not `NO_FILTER`."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArmFile(_Part):
    """An arm: a recipe of its own, or changes to the experiment's recipe."""

    recipe: str | dict[str, Any] | None = None
    set: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    """Filters of the recipe that are left out, by name."""

    @field_validator("set", "without", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class SweepFile(_Part):
    """A parameter of the recipe and the values it takes."""

    parameter: str
    values: tuple[Any, ...] = Field(min_length=2)


class Experiment(_Part):
    """An experiment as its file says it. Paths are as `curate` was started, or URLs."""

    name: str = "ablation"
    description: str = ""
    pool: str
    cache: str | None = None
    recipe: str | dict[str, Any] = "default"
    mode: Mode = "arms"
    arms: dict[str, ArmFile] = {}
    sweep: SweepFile | None = None
    samples_seen: int | tuple[int, ...] | None = None
    """Per training; several for `scaling`. None: the scale's."""
    filters: tuple[str, ...] = ()
    """The filters that leave-one-out and add-one-in try; all if empty."""
    seeds: int | tuple[int, ...] = 3
    scale: str | dict[str, Any] = "tiny"
    family: str | dict[str, Any] = "clip"
    tasks: tuple[str, ...] = Field(min_length=1)
    baseline: str | None = None
    controls: tuple[Literal["no filter", "random"], ...] = ("no filter", "random")
    decontaminate: Literal[True] | dict[str, Any] = True
    """Parameters of the filter `decontamination` beyond `against`; it cannot be left out."""
    smallest_effect: float = Field(0.01, gt=0, lt=1)
    """The smallest difference that matters, as a share: what is surely below it is "no effect"."""

    @field_validator("decontaminate", mode="before")
    @classmethod
    def _never_skipped(cls, value: Any) -> Any:
        if value is False or value is None:
            raise ValueError("evaluation images must be removed from every arm, or the experiment proves nothing")
        return value

    @field_validator("tasks", mode="before")
    @classmethod
    def _one_task(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_its_mode(self) -> Self:
        if self.mode == "arms" and not self.arms:
            raise ValueError("mode arms needs `arms`")
        if self.mode != "arms" and self.arms:
            raise ValueError(f"`arms` belongs to mode arms, not to {self.mode}")
        if (self.mode == "sweep") != (self.sweep is not None):
            raise ValueError("mode sweep needs `sweep`, and no other mode has it")
        if (self.mode == "scaling") != (isinstance(self.samples_seen, tuple) and len(self.samples_seen) > 1):
            raise ValueError("mode scaling needs several numbers as `samples_seen`, and no other mode takes them")
        if self.filters and self.mode not in ("leave-one-out", "add-one-in"):
            raise ValueError(f"`filters` belongs to leave-one-out and add-one-in, not to {self.mode}")
        if reserved := {NO_FILTER, BASE} & self.arms.keys():
            raise ValueError(f"an arm cannot be called {sorted(reserved)[0]!r}: every experiment has one of that name")
        if len(self.seed_numbers) == 0 or len(set(self.seed_numbers)) < len(self.seed_numbers):
            raise ValueError("seeds: at least one, and none twice")
        return self

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def compared_with(self) -> str:
        """The arm that every other is compared with."""
        return self.baseline or BASE_OF.get(self.mode, NO_FILTER)


def load_experiment(file: str) -> Experiment:
    """Read an experiment's YAML file.

    Raises:
        RequestError: it cannot be read, or is no experiment; names the field.
    """
    try:
        raw = yaml.safe_load(Path(file).read_text())
    except OSError as error:
        raise RequestError(f"EXPERIMENT: {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{file}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise RequestError(f"{file}: an experiment is a mapping with `pool:` and `tasks:`")
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "experiment"
        raise RequestError(f"{file}: {field}: {problem['msg'].removeprefix('Value error, ')}") from error
