"""Which of a sample's captions are learned from: the first, or one drawn anew in every epoch.

The `json` of a sample may hold `captions`, a list of objects with a `caption` and perhaps a `weight`, 1 if not said.
What is drawn depends on the training's seed, the epoch and the sample's key alone: not on the order of the samples, nor
on who reads them, nor on where a training was interrupted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.shards import BadSampleError, Sample

_STREAM = 0x63617074696F6E73  # keeps these draws apart from any others of the same seed


@dataclass(frozen=True)
class Texts:
    """What may be learned of one sample, with weights that add up to 1, and a number that is the key's own."""

    texts: tuple[str, ...]
    weights: tuple[float, ...]
    key: int  # 0..2^64 - 1


def texts_of(sample: Sample, text: Callable[[Sample], str], *, several: bool) -> Texts:
    """The texts that `text` makes of the sample's captions, or of its only one unless `several`.

    Entries of `captions` that are no captions (no text, no weight above 0) are left out, and so are those that `text`
    refuses; where none remains, the sample has its usual caption.

    Raises:
        BadSampleError: it has no caption that can be used.
    """
    key = int.from_bytes(hashlib.sha256(sample.key.encode()).digest()[:8], "big")
    found = list[tuple[str, float]]()
    for caption, weight in listed(sample) if several else ():
        try:
            said = dataclasses.replace(sample, members=sample.members | {"txt": caption.encode()})
            found.append((text(said), weight))
        except BadSampleError:
            continue
    if not found:
        return Texts((text(sample),), (1.0,), key)
    total = sum(weight for _, weight in found)
    return Texts(tuple(one for one, _ in found), tuple(weight / total for _, weight in found), key)


def listed(sample: Sample) -> list[tuple[str, float]]:
    """The captions of the `json` member with their weights; empty where there are none of that form."""
    try:
        facts: Any = json.loads(sample.members.get("json", b"{}"))
    except (ValueError, RecursionError):
        return []
    entries = facts.get("captions") if isinstance(facts, dict) else None
    found = list[tuple[str, float]]()
    for entry in entries if isinstance(entries, list) else ():
        caption = entry.get("caption") if isinstance(entry, dict) else None
        weight: Any = entry.get("weight", 1.0) if isinstance(entry, dict) else None
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if isinstance(caption, str) and caption.strip() and number and 0 < weight < math.inf:
            found.append((caption.strip(), float(weight)))
    return found


class Draws:
    """Draws among the texts of many samples at once; they are numbered through, sample by sample."""

    def __init__(self, samples: Sequence[Texts]):
        counts = np.array([len(one.texts) for one in samples])
        self.last = counts.cumsum() - 1  # the number of each sample's last text
        self.first = self.last - counts + 1
        self.keys = np.array([one.key for one in samples], np.uint64)
        shares = np.concatenate([np.cumsum(one.weights) for one in samples])
        self.ends = np.repeat(np.arange(len(samples)), counts) + shares  # sample n's texts lie in n..n+1
        self.single = bool((counts == 1).all())

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """The number of the text that each sample has in an epoch: int64 (samples,)."""
        if self.single:
            return self.first
        places = np.arange(len(self.keys)) + uniform(self.keys, seed, epoch)
        return np.clip(np.searchsorted(self.ends, places, side="right"), self.first, self.last)


def draw(one: Texts, seed: int, epoch: int) -> str:
    """The text of a single sample in an epoch: the one that `Draws` gives it."""
    return one.texts[int(Draws([one]).epoch(seed, epoch)[0])]


def uniform(keys: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """A number in 0..1 for each key, seed and epoch: float64 of the shape of `keys` (uint64).

    The keys go through SplitMix64's last steps (Steele et al. 2014, "Fast splittable pseudorandom number generators").
    """
    mixed = keys ^ np.random.SeedSequence([seed, epoch, _STREAM]).generate_state(1, np.uint64)[0]
    with np.errstate(over="ignore"):
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53
