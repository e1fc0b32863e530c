"""CIDEr-D: how like a caption is to people's captions of the same image, in words that tell images apart.

R. Vedantam, C. L. Zitnick, D. Parikh, "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015, section 4 and
the robust version of section 5 (clipping, and a Gaussian penalty of differing lengths). The numbers are those of the
authors' code for COCO (pycocoevalcap). It is here because that package brings 100 MB of Java programs under other
licences, and the kept one that has CIDEr (aac-metrics) brings audio models.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

ORDERS = 4  # n-grams of one to four words
SIGMA = 6.0
Ngram = tuple[str, ...]


def cider_d(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """Each candidate's score, 0 to 10; the score of them all is the mean.

    Words are weighed by how few images' references hold them, so a score depends on the other items too, and with a
    single item all are 0.

    Args:
        candidates: the words of one caption per item.
        references: the words of one or more captions per item.

    Raises:
        ValueError: not as many references as candidates, or an item has no reference.
    """
    if len(candidates) != len(references) or not all(references):
        raise ValueError("each candidate needs one reference or more")
    counted = [[_ngrams(words) for words in item] for item in references]
    holding = Counter(ngram for item in counted for ngram in set[Ngram]().union(*item))
    weight = {ngram: math.log(len(candidates) / count) for ngram, count in holding.items()}
    unseen = math.log(len(candidates)) if candidates else 0.0
    return [
        _score(_ngrams(words), item, weight, unseen) for words, item in zip(candidates, counted, strict=True)
    ]  # fmt: skip


def _ngrams(words: Sequence[str]) -> Counter[Ngram]:
    return Counter(
        tuple(words[start : start + order])
        for order in range(1, ORDERS + 1)
        for start in range(len(words) - order + 1)
    )  # fmt: skip


def _score(
    candidate: Counter[Ngram], references: Sequence[Counter[Ngram]], weight: Mapping[Ngram, float], unseen: float
) -> float:
    vectors = _weighed(candidate, weight, unseen)
    total = 0.0
    for reference in references:
        others = _weighed(reference, weight, unseen)
        # The authors' code takes the number of pairs of words as the length.
        gap = _pairs(candidate) - _pairs(reference)
        penalty = math.exp(-(gap**2) / (2 * SIGMA**2))
        total += penalty * sum(map(_similarity, vectors, others)) / ORDERS
    return 10 * total / len(references)


def _weighed(counts: Counter[Ngram], weight: Mapping[Ngram, float], unseen: float) -> list[dict[Ngram, float]]:
    """tf-idf by n-gram, for each order."""
    vectors: list[dict[Ngram, float]] = [{} for _ in range(ORDERS)]
    for ngram, count in counts.items():
        vectors[len(ngram) - 1][ngram] = count * weight.get(ngram, unseen)
    return vectors


def _similarity(candidate: Mapping[Ngram, float], reference: Mapping[Ngram, float]) -> float:
    """The cosine, but what the candidate repeats more often than the reference has no gain."""
    norm = math.hypot(*candidate.values()) * math.hypot(*reference.values())
    dot = sum(
        min(value, reference[ngram]) * reference[ngram] for ngram, value in candidate.items() if ngram in reference
    )
    return dot / norm if norm else 0.0


def _pairs(counts: Counter[Ngram]) -> int:
    return sum(count for ngram, count in counts.items() if len(ngram) == 2)
