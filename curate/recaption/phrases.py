"""The things that a caption names: its noun phrases, "a red star" as "red star".

Words are tagged by TextBlob's parser, which carries its lexicon (a tagger of English after Brill 1992); a phrase is a
run of adjectives, participles, numbers and nouns that ends in a noun. What speaks of the picture and not of what is
in it ("photo", "background", "left side"), or names no thing one could see ("day", "way"), is left out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

_TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[^\w\s]")
_BEFORE = {"JJ", "JJR", "JJS", "VBN", "CD", "NN", "NNS", "NNP", "NNPS", "FW"}
_NOUNS = {"NN", "NNS", "NNP", "NNPS"}
_NO_THINGS = (
    "photo photograph photography picture image photos pictures images drawing painting illustration poster caption "
    "view scene shot close-up closeup close frame foreground background backdrop center centre middle side sides left "
    "right top bottom front back end edge corner part parts row line distance direction way kind type sort lot number "
    "group pair set bunch couple variety series day days time times moment morning afternoon evening night year week "
    "month summer winter spring autumn one ones thing things something someone other others each air position place "
    "use size shape color colour style detail look looks it him her them favourite favorite collection notice "
)
NO_THINGS = frozenset(_NO_THINGS.split())
"""Nouns that name nothing a model could look for."""


def phrases_of(texts: Iterable[str]) -> list[list[str]]:
    """The things that each text names, in lower case, without articles, each once, in the text's order.

    >>> phrases_of(["A little girl in a pink dress next to two blue fish."])
    [['little girl', 'pink dress', 'two blue fish']]
    """
    tag = _tagger()
    return [_phrases(tag(_TOKEN.findall(text.lower()))) for text in texts]


def _phrases(tagged: Sequence[Sequence[str]]) -> list[str]:
    found: dict[str, None] = {}
    for inside, run in itertools.groupby(tagged, lambda pair: pair[1] in _BEFORE):
        words = list(run) if inside else []
        while words and words[-1][1] not in _NOUNS:
            words.pop()
        while len(words) > 1 and words[-1][0] in NO_THINGS and words[-2][1] in _NOUNS:
            words.pop()
        if words and words[-1][0] not in NO_THINGS and len(words[-1][0]) > 1:
            found[" ".join(word for word, _ in words)] = None
    return list(found)


@cache
def _tagger() -> Any:
    from textblob.en import parser

    return parser.find_tags
