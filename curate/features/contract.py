"""What a feature is: columns measured from one batch of samples, alike whatever else is measured with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from curate.errors import RequestError
from curate.features.batch import Batch
from curate.hashing import facts_hash, file_sha256

Need = Literal["bytes", "header", "image", "text"]
"""`bytes`: the image file as it is; `header`: it can be opened; `image`: its pixels can be decoded."""


class Feature(BaseModel, ABC):
    """A feature: its fields are its parameters, `measure` fills the columns of `schema`.

    One file in `curate/features/` holds one feature, whose class is the file's name in CamelCase.
    The same name, version, parameters and weights give the same columns, so results are cached under
    that fingerprint; raise `version` when the code changes what it measures.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    version: ClassVar[int]
    needs: ClassVar[tuple[Need, ...]]
    gpu: ClassVar[bool] = False
    """Runs a model: where there is a GPU, one process feeds it (see `GpuFeature`)."""
    stands_in: ClassVar[bool] = False
    """Gives columns that others measure, from a pool's metadata, and owns none (see `curate.metadata.stand_in`)."""

    def columns(self) -> tuple[str, ...]:
        """The names of its columns."""
        return self._column_names

    @cached_property
    def _column_names(self) -> tuple[str, ...]:
        return tuple(self.arrow_schema().names)

    @abstractmethod
    def arrow_schema(self) -> pa.Schema:
        """The columns it measures."""

    @abstractmethod
    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        """Measure a batch: each column of the schema, one value per sample, null where it cannot be told."""

    def weights_digest(self) -> str:
        """SHA-256 of the model weights it uses; empty when it uses none."""
        return ""

    def fingerprint(self) -> str:
        """12 hex digits that change when anything that could change the columns does."""
        facts: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "parameters": self.model_dump(mode="json"),
            "weights": self.weights_digest(),
        }
        return facts_hash(facts)

    @property
    def folder(self) -> str:
        """Where its columns lie in the cache, for example `phash-1f0c2b9a77de`."""
        return f"{self.name}-{self.fingerprint()}"


class GlobalFeature(Feature):
    """A feature that depends on the whole pool: fitted on columns of other features, then applied shard by shard.

    What `fit` returns is an artifact: arrays kept in the cache under a hash, so that the columns of every shard
    come from the same one and nothing is fitted twice. It never sees an image. A feature with a field `artifact`
    (a path) uses that saved one instead of fitting.
    """

    needs: ClassVar = ()

    @property
    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """The columns of other features that `fit` and `apply` are given, besides `uid`."""

    @property
    def sample_rows(self) -> int:
        """How many rows `fit` wants at most; with 0 it is given none, and does not depend on the pool."""
        return 0

    @property
    def targets(self) -> tuple[str, ...]:
        """Sets of images that the pool is compared with, as folders or files (see `curate.targets`)."""
        return ()

    @property
    def compares(self) -> tuple[str, ...]:
        """The columns that its targets are read for."""
        return self.reads

    def fit(self, rows: pa.Table) -> dict[str, np.ndarray]:
        """Fit on a sample of the pool, in uid order: the same rows for the same pool, however it is sharded.

        `rows` has `uid` and the columns of `reads`, nulls included. Plain arrays come back, no objects.
        """
        return {}

    def fit_with(self, rows: pa.Table, known: Known) -> dict[str, np.ndarray]:
        """`fit` for a feature that also needs what others fitted."""
        return self.fit(rows)

    @abstractmethod
    def apply(self, artifact: dict[str, np.ndarray], rows: pa.Table) -> dict[str, pa.Array]:
        """The columns of some rows of one shard, each row by itself: null where it cannot be told."""

    def report(self, artifact: dict[str, np.ndarray]) -> dict[str, Any]:
        """What to tell of an artifact in the manifest, as JSON values: how good it is, what it weighs."""
        return {}

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        raise TypeError(f"{self.name} is fitted on the pool's columns, not measured from samples")

    def weights_digest(self) -> str:
        """SHA-256 of the artifact file it was told to use, if any."""
        path = getattr(self, "artifact", None)
        if not path:
            return ""
        if not Path(path).is_file():
            raise RequestError(f"features.{self.name}.artifact: no file {path!r}")
        return file_sha256(path)


@dataclass(frozen=True)
class Known:
    """What there is besides the pool's rows when a global feature is fitted."""

    samples: int
    """How many the pool has, unreadable ones too."""
    artifacts: dict[str, dict[str, np.ndarray]]
    """Of the global features whose columns it reads, by their names."""
    features: tuple[Feature, ...] = ()
    """Those whose columns it reads, with their parameters."""
    targets: dict[str, pa.Table] = field(default_factory=dict)
    """The rows of each of its `targets`: `item`, a name, and those columns of `compares` that the target has."""


class GpuFeature(Protocol):
    """What a feature with `gpu = True` has besides: `measure` in two halves, the first of which needs no model."""

    def load(self, device: str | None = None) -> Any:
        """The model, with a picklable `preprocess`."""

    def prepare(self, batch: Batch, preprocess: dict[str, Any]) -> Any:
        """Make a batch ready, in any process; the result is picklable."""

    def encode(self, model: Any, inputs: Any) -> dict[str, pa.Array]:
        """Run the model on what `prepare` made; the columns of `measure`."""
