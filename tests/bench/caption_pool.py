"""A pool's worth of captions: pieces of sentences by people, with the repeats, templates and edits of the web."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

TEMPLATES = (
    "{a} | Buy online at the best price - item {n}",
    "Product image {n} of {a}",
    "{a} stock photo {n}, royalty free",
    "Photo {n} from the gallery {a}",
    "{a} for sale in our shop, model {n}, free delivery",
)


def human_captions() -> list[list[str]]:
    """The captions of the real photos: five sentences by people for each of 500."""
    file = Path(os.environ["CURATE_BENCH_DATA"]) / "captioned.parquet"
    return pq.read_table(file, columns=["captions"])["captions"].to_pylist()


def web_captions(count: int, seed: int = 0) -> list[str]:
    """Captions as a pool has them: 55 % of their own, 15 % edits of others, 10 % templates, 20 % repeats.

    A caption of its own is three runs of three to six words from three sentences, so that most share words with
    thousands of others and are like none. Repeats are Zipf-distributed over phrases, as are template families.
    """
    random = np.random.default_rng(seed)
    sentences = [c.rstrip(" .").split() for photo in human_captions() for c in photo]
    vocabulary = sorted({word for words in sentences for word in words})
    kinds = random.choice(4, count, p=[0.55, 0.15, 0.10, 0.20])
    picks = random.integers(0, len(sentences), (count, 3))
    starts, lengths = random.random((count, 3)), random.integers(3, 7, (count, 3))
    words, edits = random.integers(0, len(vocabulary), count), random.integers(0, 4, count)
    places, ranks = random.random(count), np.minimum(random.zipf(1.3, count), 20_000)
    own: list[str] = []
    found = []
    for n in range(count):
        runs = []
        for pick, start, length in zip(picks[n], starts[n], lengths[n], strict=True):
            sentence = sentences[pick]
            first = int(start * max(1, len(sentence) - length))
            runs.append(" ".join(sentence[first : first + length]))
        fresh = " ".join(runs)
        if kinds[n] == 0 or not own:
            own.append(fresh)
            found.append(fresh)
        elif kinds[n] == 1:
            found.append(edited(own[int(places[n] * len(own))], int(edits[n]), vocabulary[words[n]], places[n]))
        elif kinds[n] == 2:
            family = int(ranks[n])
            name = " ".join(sentences[family % len(sentences)][:6])
            found.append(TEMPLATES[family % len(TEMPLATES)].format(a=name, n=int(places[n] * 10_000)))
        else:
            repeated = sentences[int(ranks[n]) % len(sentences)]
            found.append(" ".join(repeated[: 2 + int(ranks[n]) % 9]) + "!" * int(edits[n] == 0))
    return found


def edited(caption: str, kind: int, word: str, place: float) -> str:
    """A caption with one of four defects: case and punctuation, a word swapped, a site's name, its end cut off."""
    words = caption.split()
    if kind == 0:
        return caption.upper() + " !!"
    if kind == 1:
        words[int(place * len(words))] = word
    elif kind == 2:
        words += ["|", "Photos.com"]
    else:
        words = words[: max(1, len(words) - 1 - int(place * 2))]
    return " ".join(words)
