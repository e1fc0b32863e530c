"""`deployments.yaml`: which flows run, on what, and when. docs/deploy.md describes it."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any, Literal, Self, get_type_hints
from zoneinfo import available_timezones

import yaml
from prefect import Flow
from prefect.client.schemas.schedules import CronSchedule
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from curate.errors import RequestError
from curate.recipe import load_recipe

FlowName = Literal["acquire", "recaption", "curation", "ablation", "pipeline"]


class Planned(BaseModel):
    """A deployment: a flow with its parameters, and when it runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, pattern=r"^[^/%&<>\s]+$")
    flow: FlowName
    description: str = ""
    parameters: dict[str, Any] = {}
    cron: str | None = None
    interval: float | None = Field(None, gt=0)
    """Seconds; instead of `cron`."""
    timezone: str = "UTC"
    concurrency: int = Field(1, ge=1)
    """Runs of it at the same time, over all workers of a work pool."""
    tags: tuple[str, ...] = ()
    paused: bool = False

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"no time zone {value!r}; write it like Europe/Berlin")
        return value

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                CronSchedule(cron=value)
            except ValidationError as error:
                raise ValueError(f"{value!r} is no cron line; 0 3 * * * is three o'clock every night") from error
        return value

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if self.cron is not None and self.interval is not None:
            raise ValueError("give cron or interval, not both")
        return self


class DeploymentsFile(BaseModel):
    """The shape of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    deployments: tuple[Planned, ...] = Field(min_length=1)


def flow_of(name: FlowName) -> Flow[..., Any]:
    """The flow of a name, `flows/NAME.py`; imported only now, since some load torch."""
    found: Flow[..., Any] = getattr(importlib.import_module(f"flows.{name}"), name)
    return found


def load_deployments(file: str | Path) -> tuple[Planned, ...]:
    """Read the file and check every deployment, its flow's parameters, recipe and experiment too.

    Raises:
        RequestError: it cannot be read, or is wrong; names the deployment and the field.
    """
    try:
        raw = yaml.safe_load(Path(file).read_text())
    except OSError as error:
        raise RequestError(f"DEPLOYMENTS: {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{file}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise RequestError(f"{file}: a mapping with `deployments:`, a list, is wanted")
    try:
        planned = DeploymentsFile.model_validate(raw).deployments
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "deployments"
        raise RequestError(f"{file}: {field}: {problem['msg'].removeprefix('Value error, ')}") from error
    names = [(one.flow, one.name) for one in planned]
    if twice := next((pair for pair in names if names.count(pair) > 1), None):
        raise RequestError(f"{file}: two deployments of {twice[0]} are called {twice[1]!r}")
    for one in planned:
        _check(f"{file}: {one.name}", one)
    return planned


def _check(where: str, one: Planned) -> None:
    """Refuse what would fail in the night: parameters that the flow does not take, and files that are wrong."""
    flow = flow_of(one.flow)
    signature = inspect.signature(flow.fn)
    if unknown := sorted(one.parameters.keys() - signature.parameters.keys()):
        known = ", ".join(signature.parameters)
        raise RequestError(f"{where}: parameters.{unknown[0]}: {one.flow} has no such parameter; it has {known}")
    try:
        bound = signature.bind(**one.parameters)
    except TypeError as error:
        raise RequestError(f"{where}: parameters: {error}") from error
    bound.apply_defaults()
    kinds = get_type_hints(flow.fn)
    for name, value in bound.arguments.items():
        try:
            TypeAdapter(kinds[name]).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(["parameters", name, *map(str, first["loc"])])
            raise RequestError(f"{where}: {field}: {first['msg']}") from error
    given = bound.arguments
    try:
        if "recipe" in given:
            load_recipe(given["recipe"], tuple(given["changes"]))
        if given.get("experiment"):
            from flows.arms import check
            from flows.experiment import load_experiment

            experiment = load_experiment(given["experiment"])
            if one.flow == "ablation":  # another flow gives it a pool that is not there yet
                check(experiment)
    except RequestError as wrong:
        raise RequestError(f"{where}: {wrong}") from wrong
