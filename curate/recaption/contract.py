"""What writes captions, and what judges them: the two contracts of recaptioning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

CAPTIONS = pa.schema(
    {
        "uid": pa.string(),
        "shard": pa.string(),
        "key": pa.string(),
        "number": pa.int32(),  # -1 for the original, 0 and up for what was written
        "source": pa.string(),  # the backend's name, or "original"
        "caption": pa.string(),  # null where none was written
        "error": pa.string(),  # why there is none, else null
        "model": pa.string(),
        "prompt": pa.string(),
        "seed": pa.int64(),
        "tokens_in": pa.int64(),
        "tokens_out": pa.int64(),
        "cost": pa.float64(),  # in the currency of the prices given, null where none are
        "score": pa.float32(),  # cosine of image and caption, null where nothing scores
        "check": pa.string(),  # the check that refused it, else null
        "reason": pa.string(),  # why, else null
        "chosen": pa.bool_(),  # whether it is a caption of the dataset
    }
)
"""One row for each caption, original and written, of each candidate: `captions.parquet`, in pool order."""
REFUSED = pa.schema({"row": pa.int64(), "reason": pa.string()})
"""What a check returns: one row for each caption it refuses, by its place in the table it was given."""


@dataclass(frozen=True)
class Request:
    """One caption to write. `image` is the file as it lies in the pool, None for a backend that needs none."""

    uid: str
    number: int
    prompt: str
    seed: int
    caption: str
    image: bytes | None = None


@dataclass(frozen=True)
class Answer:
    """What came of a request: a caption, or an error in a few words that are the same for all of its sort.

    `final` is false for an error that another run may not meet (a server that was down): such a request is asked
    again when the run is repeated; all others are paid for once.
    """

    uid: str
    number: int
    caption: str | None
    error: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    final: bool = True


class Backend(BaseModel, ABC):
    """Writes captions: its fields are its parameters. One file in `curate/recaption/backends/` holds one backend."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    version: ClassVar[int] = 1
    needs_image: ClassVar[bool] = True
    default_prompts: ClassVar[tuple[str, ...]] = ("Describe the image in one sentence.",)
    """What it is asked where the settings name no prompts."""

    @property
    def reads_caption(self) -> bool:
        """Whether what it writes depends on the sample's own caption, so that another caption is another request."""
        return not self.needs_image

    @property
    @abstractmethod
    def model_name(self) -> str:
        """What the column `model` says."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """All that decides what it writes: its parameters, and a digest of weights that lie here; no secrets."""

    @abstractmethod
    def write(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """One answer for each request, in any order; takes requests only as fast as it can work on them.

        What is wrong with one request is its answer's `error`. A RequestError or WorkError ends the run, which can
        be resumed: it is for what no request can pass, such as a wrong key.
        """

    def cost(self, tokens_in: int, tokens_out: int) -> float | None:
        """What so many tokens cost, where the backend has prices."""
        return None


class Check(BaseModel, ABC):
    """Refuses captions: its fields are its parameters. One file in `curate/recaption/checks/` holds one check.

    It sees all written captions that the checks before it let pass, so it can judge each alone or the set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]

    @property
    @abstractmethod
    def reads(self) -> Sequence[str]:
        """The columns it needs: of `CAPTIONS`, `original` (the sample's own caption), or of `recaption.measures`."""

    @abstractmethod
    def refuses(self, captions: pa.Table) -> pa.Table:
        """The captions to refuse, as a `REFUSED` table; the same whatever the order of the rows."""
