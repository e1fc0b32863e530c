"""CLIP score less what image and caption score with other samples' captions and images."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.errors import WorkError
from curate.features.contract import GlobalFeature
from curate.hashing import uid_hashes
from filters._vectors import matrix

BLOCK = 8192


class Negcliploss(GlobalFeature):
    """`negcliploss` (Wang et al. 2024, arXiv:2405.19547): a sample's negative CLIP loss in units of cosine, the mean
    over `batches` random batches of the pool; higher is better.

    With s the cosine of an image and a caption, and T the `temperature`, it is s(i,i) - T/2 [log sum_j exp(s(i,j)/T) +
    log sum_j exp(s(j,i)/T)], where j runs over a batch and i itself. Defaults are the paper's: batches of 32,768, ten
    of them, and OpenAI's T. They are drawn once, from the pool; a pool that is smaller than one batch is one batch.
    """

    name: ClassVar = "negcliploss"
    version: ClassVar = 1
    gpu: ClassVar = True
    batches: int = Field(10, ge=1)
    batch_size: int = Field(32_768, ge=1)
    temperature: float = Field(0.01, gt=0)
    image: str = "clip_image"
    text: str = "clip_text"
    artifact: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.image, self.text)

    @property
    def sample_rows(self) -> int:
        return self.batches * self.batch_size

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"negcliploss": pa.float32()})

    def fit(self, rows: pa.Table) -> dict[str, np.ndarray]:
        rows = rows.filter(self._real(rows))
        if len(rows) == 0:
            none = np.zeros((0, 0, 0), np.float16)
            return {"images": none, "texts": none, "uids": np.zeros((0, 0), np.uint64)}
        size = min(self.batch_size, len(rows))
        count = min(self.batches, len(rows) // size)
        chosen = np.random.default_rng(0).permutation(len(rows))[: count * size]

        def batched(values: np.ndarray) -> np.ndarray:
            return values[chosen].reshape(count, size, *values.shape[1:])

        images, texts = (matrix(rows[name], np.float16) for name in (self.image, self.text))
        return {"images": batched(images), "texts": batched(texts), "uids": batched(uid_hashes(rows["uid"]))}

    def apply(self, artifact: dict[str, np.ndarray], rows: pa.Table) -> dict[str, pa.Array]:
        real = self._real(rows).to_numpy(zero_copy_only=False)
        score = np.zeros(len(rows), np.float32)
        if real.any() and len(artifact["uids"]):
            found = rows.filter(pa.array(real))
            images, texts = matrix(found[self.image]), matrix(found[self.text])
            if images.shape[1] != artifact["images"].shape[2]:
                raise WorkError(
                    f"features.negcliploss: fitted to embeddings of {artifact['images'].shape[2]} numbers, and "
                    f"{self.image} has {images.shape[1]}"
                )
            score[real] = self._scores(artifact, images, texts, uid_hashes(found["uid"]))
        return {"negcliploss": pa.array(score, pa.float32(), mask=~real)}

    def _scores(
        self, artifact: dict[str, np.ndarray], images: np.ndarray, texts: np.ndarray, uids: np.ndarray
    ) -> np.ndarray:
        own = (images * texts).sum(axis=1)
        total = np.zeros(len(own), np.float64)
        for others, captions, members in zip(artifact["images"], artifact["texts"], artifact["uids"], strict=True):
            inside = np.isin(uids, members)  # its own pair is among the batch's already
            for queries, base in ((images, captions), (texts, others)):
                log_sum = log_sums(queries, base, self.temperature)
                total += np.where(inside, log_sum, np.logaddexp(log_sum, own / self.temperature))
        return (own - self.temperature / 2 * total / len(artifact["uids"])).round(6)

    def _real(self, rows: pa.Table) -> pa.Array:
        real = pc.and_(rows[self.image].is_valid(), rows[self.text].is_valid())
        return real.combine_chunks()


def log_sums(queries: np.ndarray, base: np.ndarray, temperature: float) -> np.ndarray:
    """log sum_j exp(q . b_j / T) for each of `queries` (n, d) over `base` (m, d): float64 (n,), on a GPU if any."""
    import torch

    where: Any = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked = torch.from_numpy(queries).to(where)
    found = torch.full((len(queries),), -torch.inf, dtype=torch.float64, device=where)
    for start in range(0, len(base), BLOCK):
        block = torch.from_numpy(base[start : start + BLOCK]).to(where).float()
        found = torch.logaddexp(found, torch.logsumexp(asked @ block.T / temperature, dim=1).double())
    return found.cpu().numpy()
