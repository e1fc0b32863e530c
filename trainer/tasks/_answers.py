"""What an answer says: VQA's normalisation of short answers, a choice's letter, yes or no.

S. Antol et al., "VQA: Visual Question Answering", ICCV 2015, section 4, and the rules of its published evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_LONE_STOP = re.compile(r"\.(?!\d)")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
_ARTICLES = {"a", "an", "the"}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def normalised(answer: str) -> str:
    """The answer in lower case without articles and punctuation, its number words as digits.

    A mark beside a space is dropped and one inside a word becomes a space; where the text has a number with a comma,
    all marks are dropped. Apostrophes are dropped, so that "dont" is "don't".
    """
    text = " ".join(answer.split())
    joined = _COMMA_IN_NUMBER.search(text) is not None
    kept = text
    for mark in _MARKS:
        beside = joined or f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if beside else " ")
    words = _LONE_STOP.sub("", kept).replace("'", "").lower().split()
    return " ".join(_DIGITS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, true: Sequence[str]) -> float:
    """How right an open answer is, 0..1: with people's answers as many as VQA has (four or more), the mean over leaving
    one of them out of min(1, agreeing others / 3); with fewer, 1 if it is any of them.
    """
    said = normalised(answer)
    agreeing = [normalised(one) == said for one in true]
    if len(true) < 4:
        return float(any(agreeing))
    total = sum(agreeing)
    return sum(min(1.0, (total - one) / 3) for one in agreeing) / len(agreeing)


def chosen_option(answer: str, options: Sequence[str]) -> int | None:
    """The index of the option that an answer names, by its letter or its text; None if it names none or several.

    As in MMBench (Y. Liu et al., ECCV 2024, section 4.2), short of asking another model.
    """
    text = answer.strip()
    letters = LETTERS[: len(options)]
    alone = re.fullmatch(rf"\W*([{letters}{letters.lower()}])\W*", text)
    leading = re.match(rf"\(?([{letters}])[).:,]", text) or re.search(rf"\banswer is:? \(?([{letters}])\b", text)
    if found := alone or leading:
        return LETTERS.index(found[1].upper())
    said = normalised(text)
    wanted = [normalised(option) for option in options]
    if said in wanted:
        return wanted.index(said) if wanted.count(said) == 1 else None
    named = [n for n, option in enumerate(wanted) if option and f" {option} " in f" {said} "]
    return named[0] if len(named) == 1 else None


def says_yes(answer: str) -> bool:
    """Whether an answer is no denial: its first sentence holds neither "no" nor "not".

    As Y. Li et al., "Evaluating Object Hallucination in Large Vision-Language Models" (POPE), EMNLP 2023, read answers.
    """
    words = answer.strip().split(".")[0].replace(",", " ").lower().split()
    return not {"no", "not"} & set(words)
