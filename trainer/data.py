"""Turns shards into batches: decoded once and kept in memory while they fit, else streamed by workers.

Both give the same batches again for the same shards, scale and seed. Cached batches also depend only on the
step, so a resumed training sees exactly what an uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np
import torch

from trainer.captions import Draws, Texts, draw, texts_of
from trainer.images import augment, decode
from trainer.model import Tokenizer
from trainer.scales import Scale
from trainer.shards import BadSampleError, Sample, read_samples

Text = Callable[[Sample], str]
T = TypeVar("T")
R = TypeVar("R")
DECODING_THREADS = 4


@dataclass(frozen=True)
class Batch:
    """images: uint8 (B, S, S, 3), RGB; tokens: int64 (B, context length)."""

    images: torch.Tensor
    tokens: torch.Tensor


@dataclass
class DataReport:
    """What a training read: distinct samples, skipped ones by reason, and a digest of the keys.

    The digest is the sum of the SHA-256 of every key, modulo 2^256: independent of order, cheap to merge.
    """

    unique: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    key_sum: int = 0

    def add_key(self, key: str) -> None:
        self.unique += 1
        self.key_sum = (self.key_sum + int.from_bytes(hashlib.sha256(key.encode()).digest(), "big")) % (1 << 256)

    @classmethod
    def merged(cls, parts: Iterable[DataReport]) -> DataReport:
        whole = cls()
        for part in parts:
            whole.unique += part.unique
            whole.skipped.update(part.skipped)
            whole.key_sum = (whole.key_sum + part.key_sum) % (1 << 256)
        return whole

    @property
    def digest(self) -> str:
        return f"{self.key_sum:064x}"


class CachedData:
    """Every sample decoded, as uint8 images and tokens; each epoch is a new permutation of all of them."""

    def __init__(self, images: list[np.ndarray], texts: list[Texts], tokenizer: Tokenizer, report: DataReport):
        captions = [caption for one in texts for caption in one.texts]
        self.images, self.draws = np.stack(images), Draws(texts)
        self.tokens = torch.cat([tokenizer(captions[i : i + 1024]) for i in range(0, len(captions), 1024)])
        self.report = report

    def batches(self, scale: Scale, seed: int, start: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """This process's part of every batch from step `start` on; a batch depends only on seed and step."""
        size = len(self.images)
        local = scale.batch_size // world

        @lru_cache(maxsize=2)  # the steps of an epoch share these, and a batch may lie in two
        def order_of(epoch: int) -> tuple[np.ndarray, np.ndarray]:
            """The samples in the epoch's order, and the text that each of them has."""
            order = np.random.default_rng([seed, 0, epoch]).permutation(size)
            return order, self.draws.epoch(seed, epoch)[order]

        for step in range(start, scale.steps):
            first = step * scale.batch_size + rank * local
            epochs = range(first // size, (first + local - 1) // size + 1)
            orders, said = zip(*map(order_of, epochs), strict=True)
            mine = slice(first - epochs[0] * size, first - epochs[0] * size + local)
            images, tokens = self.images[np.concatenate(orders)[mine]], self.tokens[np.concatenate(said)[mine]]
            rng = np.random.default_rng([seed, 1, step, rank])
            yield Batch(torch.from_numpy(augment(images, scale, rng)), tokens)


class StreamedData(torch.utils.data.IterableDataset):
    """Batches straight from the shards: each worker of each process reads its own part, shuffled, in epochs.

    With fewer shards than workers, each worker reads every shard and takes every n-th sample.
    """

    def __init__(self, shards: list[str], scale: Scale, tokenizer: Tokenizer, text: Text):
        self.shards, self.scale, self.tokenizer, self.text = shards, scale, tokenizer, text
        self.report = DataReport()
        self.seed = self.drawing = self.rank = 0
        self.world = 1

    def batches(self, scale: Scale, seed: int, start: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """This process's part of the batches from step `start` on; a resumed stream is shuffled anew."""
        self.scale, self.rank, self.world, self.drawing = scale, rank, world, seed
        self.seed = seed if start == 0 else int(np.random.SeedSequence([seed, start]).generate_state(1)[0])
        loader = torch.utils.data.DataLoader(
            self,
            batch_size=None,
            num_workers=scale.workers,
            multiprocessing_context="spawn" if scale.workers else None,  # fsspec's event loop dies in a fork
            prefetch_factor=4 if scale.workers else None,
            pin_memory=torch.cuda.is_available(),
        )
        for _, (images, tokens, report) in zip(range(start, scale.steps), loader, strict=False):
            self.report = DataReport.merged([self.report, report])
            yield Batch(images, tokens)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, DataReport]]:
        worker = torch.utils.data.get_worker_info()
        workers = worker.num_workers if worker else 1
        part, parts = self.rank * workers + (worker.id if worker else 0), self.world * workers
        local = self.scale.batch_size // self.world
        rng = np.random.default_rng([self.seed, part])
        images, captions, report = list[np.ndarray](), list[str](), DataReport()
        for epoch in range(self.scale.samples_seen):  # ends earlier: the reader stops asking
            usable = 0
            for sample in self._shuffled(epoch, part, parts, rng, report):
                try:
                    texts = texts_of(sample, self.text, several=self.scale.captions == "draw")
                    image = decode(sample, self.scale, rng)
                except BadSampleError as bad:
                    report.skipped[str(bad)] += epoch == 0
                    continue
                usable += 1
                images.append(image)
                captions.append(draw(texts, self.drawing, epoch))
                if epoch == 0:
                    report.add_key(sample.key)
                if len(images) == local:
                    pixels = augment(np.stack(images), self.scale, rng)
                    yield torch.from_numpy(pixels), self.tokenizer(captions), report
                    images, captions, report = [], [], DataReport()
            if usable == 0:
                raise ValueError(f"shards: no usable sample for reader {part} of {parts}: {dict(report.skipped)}")

    def _shuffled(
        self, epoch: int, part: int, parts: int, rng: np.random.Generator, report: DataReport
    ) -> Iterator[Sample]:
        """One epoch of this reader's samples in random order: shards shuffled, then a shuffle buffer."""
        order = [self.shards[i] for i in np.random.default_rng([self.seed, epoch]).permutation(len(self.shards))]
        by_shard = len(order) >= parts
        skipped = report.skipped if epoch == 0 else Counter[str]()
        samples = (s for shard in (order[part::parts] if by_shard else order) for s in read_samples(shard, skipped))
        buffer = list[Sample]()
        for index, sample in enumerate(samples):
            if not by_shard and index % parts != part:
                continue
            if len(buffer) < self.scale.shuffle_buffer:
                buffer.append(sample)
                continue
            place = int(rng.integers(len(buffer)))
            buffer[place], sample = sample, buffer[place]
            yield sample
        yield from (buffer[i] for i in rng.permutation(len(buffer)))


def caption(sample: Sample) -> str:
    """The sample's caption, which most families learn from."""
    return sample.caption


def open_data(shards: list[str], scale: Scale, tokenizer: Tokenizer, text: Text = caption) -> CachedData | StreamedData:
    """Decodes everything into memory if it fits in the scale's `cache_bytes`, else streams.

    `text` says what of a sample the tokenizer is given; a BadSampleError of it leaves the sample out.

    Raises:
        ValueError: not one sample is usable.
    """
    report = DataReport()
    most = 0 if scale.augment == "crop" else scale.cache_bytes // (scale.image_size**2 * 3)
    images, texts = list[np.ndarray](), list[Texts]()
    if most > 0:
        samples = (sample for shard in shards for sample in read_samples(shard, report.skipped))
        for sample, result in map_in_order(partial(_decode_or_reason, scale=scale, text=text), samples):
            if isinstance(result, str):
                report.skipped[result] += 1
                continue
            if len(images) == most:
                return StreamedData(shards, scale, tokenizer, text)
            report.add_key(sample.key)
            images.append(result[0])
            texts.append(result[1])
        if not images:
            raise ValueError(f"shards: no usable sample (skipped: {dict(report.skipped)})")
        return CachedData(images, texts, tokenizer, report)
    return StreamedData(shards, scale, tokenizer, text)


def _decode_or_reason(sample: Sample, scale: Scale, text: Text) -> tuple[np.ndarray, Texts] | str:
    try:
        return decode(sample, scale), texts_of(sample, text, several=scale.captions == "draw")
    except BadSampleError as bad:
        return str(bad)


def map_in_order(function: Callable[[T], R], items: Iterable[T], ahead: int = 256) -> Iterator[tuple[T, R]]:
    """Each item with its result, in order, computed by a few threads (PIL decodes without Python's lock)."""
    waiting = deque[tuple[T, Future[R]]]()
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) >= ahead:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
