"""What a finished dataset was made from: its filters and, where the cache still has them, its measured columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from curate.errors import RequestError
from curate.features import feature_class
from curate.features.contract import Feature
from curate.measure import ShardTask, read_features
from curate.pool import Pool
from curate.recipe import parse_recipe
from filters.contract import Filter


@dataclass(frozen=True)
class Step:
    """A filter of the manifest's recipe: the name it goes by, its parameters, and itself if it can be imported."""

    name: str
    parameters: dict[str, Any]
    filter: Filter | None

    @property
    def kind(self) -> str:
        """The filter's own name, without the number that a second one of a kind carries."""
        return self.name.partition("#")[0]

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(self.filter.reads) if self.filter else ()


def steps_of(manifest: dict[str, Any]) -> list[Step]:
    """The filters of a manifest, in their order."""
    features = manifest["recipe"].get("features", {})
    steps = []
    for item in manifest["recipe"]["filters"]:
        ((name, parameters),) = item.items()
        raw = {"features": features, "filters": [{name.partition("#")[0]: parameters}]}
        try:
            found = parse_recipe(raw, "manifest.json").filters[0].filter
        except RequestError:  # a user's own filter that is not at hand here
            found = None
        steps.append(Step(name, dict(parameters or {}), found))
    return steps


@dataclass(frozen=True)
class Measured:
    """The cached features of a pool. `missing` names those that are gone or cannot be told."""

    pool: Pool
    features: tuple[tuple[str, Feature], ...]
    missing: tuple[str, ...]

    @cached_property
    def columns(self) -> dict[str, pa.DataType]:
        return {field.name: field.type for _, feature in self.features for field in feature.arrow_schema()}

    def read(self, shard: str, columns: Sequence[str]) -> pa.Table | None:
        """Some columns of a shard, one row per sample in tar order; None if the cache lacks them."""
        number = self.pool.shard_numbers.get(shard)
        if number is None or any(column not in self.columns for column in columns):
            return None
        task = ShardTask(self.pool.folder, self.pool.cache, self.pool.shards[number], self.features)
        try:
            return read_features(task, columns)
        except (OSError, pa.ArrowInvalid, KeyError):
            return None


def open_measured(manifest: dict[str, Any], pool: Pool) -> Measured:
    """Find the features that the manifest's recipe measured, in the pool's cache."""
    found, missing = [], []
    fitted = manifest.get("global_features", {})
    for name, parameters in manifest["recipe"].get("features", {}).items():
        try:
            feature = feature_class(name).model_validate(parameters or {})
            folder = fitted.get(name) or feature.folder
            feature.arrow_schema()
        except (RequestError, ValueError, OSError):  # its code or its weights are not at hand here
            missing.append(name)
            continue
        if pool.cache.exists(folder):
            found.append((folder, feature))
        else:
            missing.append(name)
    return Measured(pool, tuple(found), tuple(missing))
