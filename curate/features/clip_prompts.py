"""Zero-shot scores: how much more an image looks like some prompts than like others (Radford et al. 2021), by CLIP."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from curate import openclip
from curate.errors import RequestError
from curate.features.clip import Clip
from curate.features.contract import GlobalFeature, Known
from curate.heads import embeddings


class Prompts(BaseModel):
    """What an image is compared with: texts that describe what is looked for, and texts of what is not."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    positive: tuple[str, ...] = Field(min_length=1)
    negative: tuple[str, ...] = Field(min_length=1)


class ClipPrompts(GlobalFeature):
    """One column per score, 0 to 1: the probability of the `positive` prompts against the `negative` ones.

    `scores: {violent: {positive: [a photo of a fight], negative: [a photo of people]}}` gives the column `violent`.
    Each side counts the same, however many prompts it has. The model is that of `features.clip`, and only the
    prompts are run through it: images are those of `clip_image`.
    """

    name: ClassVar = "clip_prompts"
    version: ClassVar = 1
    scores: dict[str, Prompts] = {}

    @model_validator(mode="after")
    def _columns_have_names(self) -> Self:
        if odd := [column for column in self.scores if not column.isidentifier()]:
            raise ValueError(f"scores: {odd[0]!r} cannot be a column; use letters, digits and _")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return ("clip_image",)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({column: pa.float32() for column in self.scores})

    def fit_with(self, rows: pa.Table, known: Known) -> dict[str, np.ndarray]:
        """The prompts' embeddings times the model's own temperature, float32 (prompts, size) for each side."""
        clip = next((feature for feature in known.features if isinstance(feature, Clip)), None)
        if clip is None:
            raise RequestError("features.clip_prompts: needs the model that made clip_image: name it in features.clip")
        model = clip.load()
        scale = float(model.network.logit_scale.detach().exp())
        arrays = {}
        for column, prompts in self.scores.items():
            for side, texts in (("positive", prompts.positive), ("negative", prompts.negative)):
                words: list[str | None] = list(texts)
                inputs = openclip.prepare(clip.model, model.preprocess, [], words)
                size = rows.schema.field("clip_image").type.list_size
                arrays[f"{column}.{side}"] = (openclip.encode(model, inputs, size)[1] * scale).astype(np.float32)
        return arrays

    def apply(self, artifact: dict[str, np.ndarray], rows: pa.Table) -> dict[str, pa.Array]:
        images, real = embeddings(rows["clip_image"])
        found = {}
        for column in self.scores:
            for_it, against = (_evidence(images, artifact[f"{column}.{side}"]) for side in ("positive", "negative"))
            score = (1 + np.tanh((for_it - against) / 2)) / 2
            found[column] = pa.array(score.round(5).astype(np.float32), mask=~real)
        return found


def _evidence(images: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """The log of the mean of exp(logit) over some prompts: float64 (n,)."""
    logits = images.astype(np.float64) @ prompts.T.astype(np.float64)
    most = logits.max(axis=1, keepdims=True)
    return most[:, 0] + np.log(np.exp(logits - most).mean(axis=1))
