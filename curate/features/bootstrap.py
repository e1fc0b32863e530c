"""How well image and caption agree, judged by models that were trained on the pool itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import openclip
from curate.artifacts import read_artifact, save_artifact
from curate.errors import RequestError
from curate.features.batch import Batch
from curate.features.clip import Clip
from curate.features.contract import Feature
from curate.hashing import file_sha256
from curate.storage import Folder
from filters._vectors import log_mean_exp, matrix

SCORER = "scorer.json"
REFERENCE = "reference.npz"


@dataclass(frozen=True)
class Judge:
    """A model and a sample of embeddings that says what is usual for it: float32 (references, size) each."""

    model: openclip.Model
    images: np.ndarray
    texts: np.ndarray


@dataclass(frozen=True)
class Judges:
    """The judges by the fold of the pool that they judge. A fold that has none gets no score."""

    by_fold: dict[int, Judge]
    device: Any
    preprocess: dict[str, Any]


@dataclass(frozen=True)
class FoldedInputs:
    """A batch ready for the models, and the fold that each sample is in: int64 (samples,)."""

    inputs: openclip.Inputs
    fold: np.ndarray

    def pin_memory(self) -> FoldedInputs:
        return replace(self, inputs=self.inputs.pin_memory())


class Bootstrap(Feature):
    """`bootstrap_score`: how much likelier the pair is than its image and its caption by themselves, in nats.

    The scorer is trained on the pool, in the manner of Data Filtering Networks (Fang et al. 2023,
    arXiv:2309.17425) but without trusted data: the pool is cut into `folds`, and each is judged by a model
    trained on the others (cross-fitting), so that none judges a caption it has learned by heart. In each of
    the `rounds` the models are trained anew on the `keep_fraction` of pairs that the latest ones like best.
    With `trusted`, a folder of shards whose pairs are known to be good, one model is trained on that alone.

    The score is t*cos(image, caption), less the mean of log mean exp of t*cos over other captions and over
    other images, with the model's own t: the normalised score of Wang et al. 2024 (arXiv:2405.19547), which
    makes the folds' models comparable. Folds are those of the filter `fold`.

    Each model sees `samples_seen` pairs, half as many again as its `scale` says unless given.

    `scorer` is a folder that `curate bootstrap` wrote; where it is not given, `curate filter` trains one with
    the other parameters and keeps it in the pool's cache.
    """

    name: ClassVar = "bootstrap"
    version: ClassVar = 1
    needs: ClassVar = ("image", "text")
    gpu: ClassVar = True
    scorer: str | None = None
    scale: str = "tiny"
    samples_seen: int | None = Field(None, ge=1)
    folds: int = Field(2, ge=2, le=16)
    rounds: int = Field(2, ge=1, le=10)
    keep_fraction: float = Field(0.5, gt=0, le=1)
    trusted: str | None = None
    seed: int = Field(0, ge=0)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"bootstrap_score": pa.float32()})

    def weights_digest(self) -> str:
        """SHA-256 over the models' files; empty as long as there is no scorer.

        Raises:
            RequestError: its folder holds no scorer.
        """
        if self.scorer is None:
            return ""
        files = sorted(file for part in self._parts()[1].values() for file in part.iterdir() if file.is_file())
        return sha256("".join(file_sha256(file) for file in files).encode()).hexdigest()

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        judges = self.load()
        return self.encode(judges, self.prepare(batch, judges.preprocess))

    def load(self, device: str | None = None) -> Judges:
        """The models, which `encode` needs and `prepare` does not."""
        return load(self._scorer, device)

    def prepare(self, batch: Batch, preprocess: dict[str, Any]) -> FoldedInputs:
        """Decode, resize and tokenize a batch."""
        folds, parts = self._parts()
        inputs = openclip.prepare(
            str(next(iter(parts.values()))),
            preprocess,
            batch.images(openclip.input_side(preprocess), "RGB"),
            batch.texts,
        )
        places = [int.from_bytes((digest or b"")[:4]) * folds >> 32 for digest in batch.digests]
        return FoldedInputs(inputs, np.array(places, np.int64))

    def encode(self, model: Judges, inputs: FoldedInputs) -> dict[str, pa.Array]:
        """Score a prepared batch; null where an image or a caption is missing, or its fold has no model."""
        ready = inputs.inputs
        scores = np.full(len(inputs.fold), np.nan, np.float32)
        for fold, judge in model.by_fold.items():
            chosen = (inputs.fold == fold) & ready.has_image & ready.has_text
            if chosen.any():
                both = np.ones(chosen.sum(), bool)
                pixels, tokens = ready.pixels[chosen[ready.has_image]], ready.tokens[chosen[ready.has_text]]
                pairs = openclip.Inputs(pixels, tokens, both, both)
                scores[chosen] = surprise(*openclip.encode(judge.model, pairs, judge.images.shape[1]), judge)
        return {"bootstrap_score": pa.array(scores, pa.float32(), mask=np.isnan(scores))}

    @property
    def _scorer(self) -> str:
        if self.scorer is None:
            raise RequestError("features.bootstrap.scorer: give the folder that `curate bootstrap` wrote")
        return self.scorer

    def _parts(self) -> tuple[int, dict[int, Path]]:
        return scorer_parts(self._scorer)


@cache
def scorer_parts(scorer: str) -> tuple[int, dict[int, Path]]:
    """How many folds a scorer has, and the folders of its models by the fold that each judges.

    Raises:
        RequestError: the folder holds no scorer.
    """
    try:
        folds = int(json.loads((Path(scorer) / SCORER).read_text())["folds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"features.bootstrap.scorer: {scorer} holds no {SCORER} of `curate bootstrap`") from error
    parts = {fold: Path(scorer) / part_name(fold) for fold in range(folds)}
    return folds, {fold: folder for fold, folder in parts.items() if (folder / REFERENCE).is_file()}


def part_name(fold: int) -> str:
    """The folder, in a scorer, of the model that judges a fold."""
    return f"fold-{fold}"


@cache
def load(scorer: str, device: str | None) -> Judges:
    """A scorer's models with their references; once per process."""
    by_fold: dict[int, Judge] = {}
    for fold, part in scorer_parts(scorer)[1].items():
        model = openclip.load(str(part), "", device)
        reference = read_artifact(str(part / REFERENCE), "features.bootstrap.scorer")
        by_fold[fold] = Judge(model, reference["images"], reference["texts"])
    first = next(iter(by_fold.values())).model
    return Judges(by_fold, first.device, first.preprocess)


def write_reference(model: Path, some: Iterable[Batch]) -> None:
    """Put a model's embeddings of some of the pool's pairs beside it; nothing is done where they are.

    Of the pool, not of what the model was trained on: a scorer that takes the pairs it likes for usual would, round
    after round, like fewer and fewer kinds.
    """
    if (model / REFERENCE).is_file():
        return
    feature, images, texts = Clip(model=str(model)), list[np.ndarray](), list[np.ndarray]()
    for batch in some:
        columns = feature.measure(batch)
        real = columns["clip_score"].is_valid()
        images.append(matrix(columns["clip_image"].filter(real)))
        texts.append(matrix(columns["clip_text"].filter(real)))
    save_artifact(Folder(str(model)), REFERENCE, {"images": np.concatenate(images), "texts": np.concatenate(texts)})


def surprise(images: np.ndarray, texts: np.ndarray, judge: Judge) -> np.ndarray:
    """The normalised score of pairs: unit vectors float32 (n, size) each, to nats (n,)."""
    scale = judge.model.network.logit_scale.exp().item()
    usual = [log_mean_exp(scale * images @ judge.texts.T), log_mean_exp(scale * texts @ judge.images.T)]
    return scale * (images * texts).sum(axis=1) - (usual[0] + usual[1]) / 2
