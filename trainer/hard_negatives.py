"""A wrong caption that differs from the true one in little: an attribute, a relation, or the order of its words.

Yuksekgonul et al. 2023, "When and why vision-language models behave like bags-of-words, and what to do about it",
arXiv:2210.01936 (NegCLIP): a batch's other captions never teach a model who is red and who is left; these do.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

import numpy as np
import torch

from trainer.model import Tokenizer


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COLOURS = _words("red green blue yellow orange purple pink brown black white grey gray")
NUMBERS = _words("two three four five six seven eight nine ten")
_OPPOSITES = (
    "left right, above below, over under, inside outside, top bottom, up down, front back, "
    "big small, large little, tall short, long wide, old new, young elderly, open closed, dark bright, hot cold, "
    "wet dry, full empty, thick thin, near far, first last, day night, man woman, boy girl, indoor outdoor, "
    "horizontal vertical, smooth rough, happy sad, clean dirty, sitting standing, with without"
)
OPPOSITES = {a: b for pair in _OPPOSITES.split(", ") for a, b in (pair.split(), pair.split()[::-1])}
OPPOSITES["behind"] = "in front of"
STOP_WORDS = _words(
    "a an the this that these those of in on at to for from by with and or as is are was were be been it its his her "
    "their our your my you we they he she i there here while which who one some any all not no"
)
LIST_WORDS = _words("a an the and or with beside near next to together")  # whose two sides may be swapped


def hard_negative(caption: str) -> str:
    """A caption that is no longer true, the same one for the same caption; "" where nothing can be changed.

    Words are changed in the order: two attributes of one kind swapped, an attribute or relation replaced (one of these
    two, where both can be), else two words swapped.
    """
    pieces = re.findall(r"\w+|\W+", caption)
    words = [piece.lower() for piece in pieces]
    random = np.random.default_rng(zlib.crc32(caption.encode()))
    changes: list[Callable[[list[str], np.random.Generator], dict[int, str]]] = [_swapped_attributes, _replaced]
    if random.random() < 0.5:
        changes.reverse()
    for change in (*changes, _swapped_words):
        if changed := change(words, random):
            return "".join(changed.get(place, piece) for place, piece in enumerate(pieces))
    return ""


def _swapped_attributes(words: list[str], random: np.random.Generator) -> dict[int, str]:
    """ "a red star and a blue heart": "a blue star and a red heart"."""
    for kind in (COLOURS, NUMBERS):
        first = next((place for place, word in enumerate(words) if word in kind), None)
        if first is None:
            continue
        for place in range(first + 1, len(words)):
            if words[place] in kind and words[place] != words[first]:
                return {first: words[place], place: words[first]}
    return {}


def _replaced(words: list[str], random: np.random.Generator) -> dict[int, str]:
    """ "a star to the left of a heart": "a star to the right of a heart"; "a red star": "a green star"."""
    others = dict[int, str]()
    for place, word in enumerate(words):
        if word in OPPOSITES:
            others[place] = OPPOSITES[word]
        for kind in (COLOURS, NUMBERS):
            if word in kind:
                others[place] = str(random.choice([other for other in kind if other != word]))
    if not others:
        return {}
    place = int(random.choice(list(others)))
    return {place: others[place]}


def _swapped_words(words: list[str], random: np.random.Generator) -> dict[int, str]:
    """ "a dog chases the cat": "a cat chases the dog"; not the two of a list, whose order says nothing."""
    content = [place for place, word in enumerate(words) if word.isalpha() and word not in STOP_WORDS]
    pairs = [
        (first, second)
        for index, first in enumerate(content)
        for second in content[index + 1 :]
        if words[first] != words[second]
        and any(word.isalpha() and word not in LIST_WORDS for word in words[first + 1 : second])
    ]
    if not pairs:
        return {}
    first, second = pairs[int(random.integers(len(pairs)))]
    return {first: words[second], second: words[first]}


class WithHardNegatives:
    """A tokenizer of N captions that gives int64 (N, 2, L): each caption, then its hard negative; zeros for none."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, captions: list[str]) -> torch.Tensor:
        wrong = [hard_negative(caption) for caption in captions]
        negatives = self.tokenizer(wrong)
        negatives[[not caption for caption in wrong]] = 0
        return torch.stack([self.tokenizer(captions), negatives], dim=1)
