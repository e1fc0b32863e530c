"""How well captions, and the things they name, fit their images, by a CLIP."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import xxhash

from curate import openclip
from curate.features.clip import Clip
from curate.recaption.phrases import phrases_of

BATCH = 256
"""Texts embedded at once. Constant, so that a model's sums do not depend on how a run was split."""
ALTERNATIVES = 4
"""Other things that each thing is compared with."""
COMMON = 256
"""Things of the pool's captions that those are drawn from."""
_SAMPLED = 2048  # captions they are taken from
_ARTICLE = r"(?:\b(?:an?|the) )?"


def embed_texts(clip: Clip, texts: Sequence[str]) -> np.ndarray:
    """Unit vectors of texts: float32 (n, d). Equal texts are embedded once, long and short ones apart."""
    found = pa.array(texts, pa.string()).dictionary_encode()
    unique = found.dictionary.to_pylist()
    model, size = clip.load(), openclip.config(clip.model)["embed_dim"]
    out = np.zeros((len(unique), size), np.float32)
    order = sorted(range(len(unique)), key=lambda place: (len(unique[place]), unique[place]))
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        words = [unique[place] for place in places]
        inputs = openclip.prepare(clip.model, model.preprocess, [None] * len(words), list(words))
        out[places] = openclip.encode(model, inputs, size)[1]
    return out[found.indices.to_numpy()]


def cosines(vectors: np.ndarray, texts: np.ndarray, known: np.ndarray) -> pa.Array:
    """Cosines of unit vectors, row by row (n, d), null where `known` (n,) is false."""
    return pa.array(np.einsum("nd,nd->n", vectors, texts), pa.float32(), mask=~known)


def common_things(texts: Sequence[str]) -> list[str]:
    """Up to `COMMON` things that captions name, as often as they do; the same whatever the texts' order."""
    chosen = sorted(set(texts), key=lambda text: (_hash(text), text))[:_SAMPLED]
    named = [thing for things in phrases_of(chosen) for thing in things]
    spread = np.argsort([_hash(f"{place} {thing}") for place, thing in enumerate(named)])
    return [named[place] for place in spread[:COMMON]]


def thing_scores(
    clip: Clip, texts: Sequence[str], vectors: np.ndarray, whole: np.ndarray, common: Sequence[str]
) -> tuple[pa.Array, pa.Array]:
    """Of the things that each caption names, the one that fits its image least, and how well it does.

    A thing's score is the cosine of the caption and its image, less that of the best of other captions: the same
    without the thing, and with each of `ALTERNATIVES` things of other captions in its place. In units of the
    standard deviation of the image's cosines with `common`, so that it means the same with any model: below 0, the
    image is better described by something else.

    That a false statement be compared with true ones about the same image is POPE's idea (Li et al. 2023), that each
    object be judged by itself CHAIR's (Rohrbach et al. 2018), and the cosine CLIPScore's (Hessel et al. 2021).

    Args:
        vectors: of the images, float32 (n, d).
        whole: cosines of captions and images, float32 (n,).

    Returns:
        The things, and their scores, float32; null for a caption that names none.
    """
    named = phrases_of(texts)
    owner = np.repeat(np.arange(len(texts)), [len(things) for things in named])
    flat = [(texts[place], thing) for place, things in enumerate(named) for thing in things]
    if not flat or not common:
        return pa.nulls(len(texts), pa.string()), pa.nulls(len(texts), pa.float32())
    others = [other for text, thing in flat for other in _others(text, thing, common)]
    embedded = embed_texts(clip, others).reshape(len(flat), ALTERNATIVES + 1, -1)
    best = np.einsum("pad,pd->pa", embedded, vectors[owner]).max(axis=1)
    spread = (vectors @ embed_texts(clip, common).T).std(axis=1)
    score = (whole[owner] - best) / np.maximum(spread[owner], 1e-4)
    order = np.lexsort((np.arange(len(flat)), score, owner))
    texts_with, first = np.unique(owner[order], return_index=True)
    least = np.full(len(texts), -1)
    least[texts_with] = order[first]
    places = pa.array(least, mask=least < 0)
    return pa.array([thing for _, thing in flat]).take(places), pa.array(score, pa.float32()).take(places)


def _others(text: str, thing: str, common: Sequence[str]) -> list[str]:
    """The caption without a thing, and with others in its place, drawn by a hash of both."""
    draw = np.random.default_rng(_hash(f"{thing}\n{text}"))
    drawn = [common[int(place)] for place in draw.integers(len(common), size=2 * ALTERNATIVES)]
    other = sorted(drawn, key=lambda one: one == thing or one in text.lower())[:ALTERNATIVES]
    pattern = r"\W+".join(map(re.escape, thing.split()))
    without = re.sub(rf"(?i){_ARTICLE}\b{pattern}\b", "", text)
    around = re.split(rf"(?i)\b{pattern}\b", text)
    return [" ".join(without.split()), *(one.join(around) for one in other)]


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())
