"""What a feature is: columns measured from one batch of samples, alike whatever else is measured with it."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Protocol

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from curate.features.batch import Batch

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

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """The names of its columns, alike under any parameters."""
        return tuple(cls().arrow_schema().names)

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
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> str:
        """Where its columns lie in the cache, for example `phash-1f0c2b9a77de`."""
        return f"{self.name}-{self.fingerprint()}"


class GpuFeature(Protocol):
    """What a feature with `gpu = True` has besides: `measure` in two halves, the first of which needs no model."""

    def load(self, device: str | None = None) -> Any:
        """The model, with a picklable `preprocess`."""

    def prepare(self, batch: Batch, preprocess: dict[str, Any]) -> Any:
        """Make a batch ready, in any process; the result is picklable."""

    def encode(self, model: Any, inputs: Any) -> dict[str, pa.Array]:
        """Run the model on what `prepare` made; the columns of `measure`."""
