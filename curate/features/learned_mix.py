"""One score from many columns: a logistic model that tells real pairs from planted wrong ones, or trusted from raw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pydantic import Field

from curate.errors import RequestError
from curate.features.contract import GlobalFeature
from filters._vectors import log_mean_exp, matrix

IMAGE_COLUMNS = ("width", "height", "brightness", "contrast", "sharpness", "entropy")
CAPTION_COLUMNS = ("caption_length", "caption_words", "caption_alpha", "language_probability")
LARGE = ("width", "height", "sharpness", "caption_length", "caption_words")
"""Columns that range over orders of magnitude: their logarithm is what counts."""
REFERENCES = 1024
SCALE = 50.0
"""What cosines are multiplied by before a log mean exp: between the scales that small and large CLIPs learn."""


class LearnedMix(GlobalFeature):
    """`mix_score`: log-odds that a pair is a real one, from all cached columns together; 0 is undecided.

    A logistic regression over the CLIP cosine, what is usual for that image and that caption (log mean exp of
    the cosine over other captions and images), the columns named here, and their products with the cosine. It
    is fitted on `rows` samples of the pool. Wrong pairs are planted: the same images with each other's
    captions, so no label is needed. With `trusted`, a dataset of `curate filter` or Parquet files with the
    columns, it tells trusted pairs from the pool's instead (as the quality classifier of Brown et al. 2020,
    arXiv:2005.14165, appendix A, does for text). A fifth of the sample is held out to measure the model: see
    `report`.
    """

    name: ClassVar = "learned_mix"
    version: ClassVar = 1
    image_columns: tuple[str, ...] = IMAGE_COLUMNS
    caption_columns: tuple[str, ...] = CAPTION_COLUMNS
    trusted: str | None = None
    rows: int = Field(50_000, ge=100)
    penalty: float = Field(1.0, gt=0)
    seed: int = Field(0, ge=0)
    artifact: str | None = None

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"mix_score": pa.float32()})

    @property
    def reads(self) -> tuple[str, ...]:
        return (*self.image_columns, *self.caption_columns, "clip_image", "clip_text")

    @property
    def sample_rows(self) -> int:
        return self.rows

    def fit(self, rows: pa.Table) -> dict[str, np.ndarray]:
        rows = _complete(rows, self.reads)
        if len(rows) < 20:
            raise RequestError(f"features.learned_mix: {len(rows)} samples have all its columns; it needs 20 to learn")
        random = np.random.default_rng(self.seed)
        basis = self._basis(rows, random)
        own = np.arange(len(rows))
        raw = self._inputs(basis, rows, own)
        if self.trusted is None:
            shuffled = np.empty_like(own)
            order = random.permutation(len(rows))
            shuffled[order] = np.roll(order, 1)  # no image keeps its caption
            good, bad = raw, self._inputs(basis, rows, shuffled)
        else:
            liked = _complete(_read_trusted(self.trusted, self.reads), self.reads)
            if len(liked) < 20:
                raise RequestError(f"features.learned_mix.trusted: {self.trusted} has {len(liked)} usable rows, of 20")
            good, bad = self._inputs(basis, liked, np.arange(len(liked))), raw
        mean, spread = raw.mean(axis=0), raw.std(axis=0)
        spread[spread < 1e-9] = 1.0
        held = [random.random(len(side)) < 0.2 for side in (good, bad)]
        good, bad = (good - mean) / spread, (bad - mean) / spread
        learn = np.concatenate([good[~held[0]], bad[~held[1]]])
        labels = np.repeat([1.0, 0.0], [(~held[0]).sum(), (~held[1]).sum()])
        weights = logistic_regression(learn, labels, self.penalty)
        scores = [side[mask] @ weights[1:] for side, mask in zip((good, bad), held, strict=True)]
        facts = {"names": np.array(self._names()), "weights": weights, "mean": mean, "spread": spread}
        return basis | facts | {"held_out_auc": np.array(auc_interval(*scores))}

    def apply(self, artifact: dict[str, np.ndarray], rows: pa.Table) -> dict[str, pa.Array]:
        whole = _present(rows, self.reads)
        chosen = rows.filter(pa.array(whole))
        scores = np.full(len(rows), np.nan, np.float32)
        if len(chosen):
            inputs = (self._inputs(artifact, chosen, np.arange(len(chosen))) - artifact["mean"]) / artifact["spread"]
            scores[whole] = artifact["weights"][0] + inputs @ artifact["weights"][1:]
        return {"mix_score": pa.array(scores, pa.float32(), mask=~whole)}

    def report(self, artifact: dict[str, np.ndarray]) -> dict[str, Any]:
        """How well the model tells held-out pairs apart, with its 95 % interval, and its weights per spread."""
        auc, low, high = artifact["held_out_auc"].round(4).tolist()
        order = np.argsort(-np.abs(artifact["weights"][1:]), kind="stable")
        weights = {str(artifact["names"][n]): round(float(artifact["weights"][n + 1]), 4) for n in order}
        return {"held_out_auc": auc, "interval": [low, high], "weights": weights}

    def _basis(self, rows: pa.Table, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Embeddings that stand for the pool's, and where each column's middle is."""
        some = rows.take(np.sort(random.permutation(len(rows))[:REFERENCES]))
        columns = self._columns(rows, np.arange(len(rows)))
        spread = columns.std(axis=0)
        return {
            "images": matrix(some["clip_image"]),
            "texts": matrix(some["clip_text"]),
            "column_mean": columns.mean(axis=0),
            "column_spread": np.where(spread < 1e-9, 1.0, spread),
        }

    def _inputs(self, basis: dict[str, np.ndarray], rows: pa.Table, captions: np.ndarray) -> np.ndarray:
        """The model's inputs, float64 (n, inputs), of the images with the captions of other rows of the table."""
        images, texts = matrix(rows["clip_image"]), matrix(rows["clip_text"])[captions]
        cosine = SCALE * (images * texts).sum(axis=1, dtype=np.float64)
        sides = ((images, basis["texts"]), (texts, basis["images"]))
        usual = [log_mean_exp(SCALE * (some @ others.T).astype(np.float64)) for some, others in sides]
        columns = (self._columns(rows, captions) - basis["column_mean"]) / basis["column_spread"]
        columns = columns.clip(-5, 5)
        return np.column_stack([cosine, *usual, columns, columns * (cosine - usual[0])[:, None]])

    def _columns(self, rows: pa.Table, captions: np.ndarray) -> np.ndarray:
        """The named columns, float64 (n, columns): the image's of each row, the caption's of another."""
        found = []
        for name in (*self.image_columns, *self.caption_columns):
            values = rows[name].to_numpy().astype(np.float64)
            values = np.log1p(np.maximum(values, 0)) if name in LARGE else values
            found.append(values[captions] if name in self.caption_columns else values)
        return np.stack(found, axis=1) if found else np.zeros((len(rows), 0))

    def _names(self) -> list[str]:
        columns = [*self.image_columns, *self.caption_columns]
        return ["cosine", "usual for the image", "usual for the caption", *columns, *(f"cosine x {c}" for c in columns)]


def logistic_regression(inputs: np.ndarray, labels: np.ndarray, penalty: float) -> np.ndarray:
    """Weights (1 + inputs,), the constant first, by Newton's method; the classes weigh the same.

    Args:
        inputs: standardised, float64 (n, inputs).
        labels: 0 or 1 (n,).
        penalty: half of it times the sum of squared weights, but the constant's, is added to the log loss.
    """
    design = np.column_stack([np.ones(len(inputs)), inputs])
    balance = np.where(labels == 1, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    ridge = np.full(design.shape[1], penalty)
    ridge[0] = 1e-9
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        slope = design.T @ (balance * (labels - chance)) - ridge * weights
        curve = (design * (balance * chance * (1 - chance))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    return weights


def auc_interval(good: np.ndarray, bad: np.ndarray) -> tuple[float, float, float]:
    """The share of (good, bad) pairs that the scores order rightly, and its 95 % interval.

    Hanley & McNeil, "The meaning and use of the area under a ROC curve" (1982).
    """
    if not len(good) or not len(bad):
        return float("nan"), 0.0, 1.0
    below = np.sort(bad)
    area = float((np.searchsorted(below, good) + np.searchsorted(below, good, "right")).mean() / 2 / len(bad))
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (len(good) - 1) * (first - area**2) + (len(bad) - 1) * (second - area**2)
    half = 1.96 * (max(spread, 0.0) / (len(good) * len(bad))) ** 0.5
    return area, max(0.0, area - half), min(1.0, area + half)


def _present(rows: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """Which rows have all of the columns: bool (n,)."""
    real = np.ones(len(rows), bool)
    for name in columns:
        real &= pc.is_valid(rows[name]).to_numpy()
    return real


def _complete(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    return rows.filter(pa.array(_present(rows, columns)))


def _read_trusted(path: str, columns: Sequence[str]) -> pa.Table:
    """The columns from a dataset's Parquet files, or from any others."""
    folder = Path(path) / "shards" if (Path(path) / "shards").is_dir() else Path(path)
    try:
        files = sorted(folder.glob("*.parquet")) if folder.is_dir() else [folder]
        return ds.dataset(files, format="parquet").to_table(columns=list(columns))
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise RequestError(
            f"features.learned_mix.trusted: {path} has no Parquet files with its columns ({str(error).splitlines()[0]})"
        ) from error
