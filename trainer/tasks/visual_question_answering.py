"""Visual question answering: which option, or which short answer, is right?

Items hold an image (or `image_1`) and a `question`, and either `options` (a list, or one written as text, or the fields
`A`, `B`, ...) with the `answer` (a letter, an index or an option's text), or people's `answers`: the files of MMMU,
MMBench and VQA. An item that needs several images is skipped.

Circular evaluation: Y. Liu et al., "MMBench: Is Your Multi-modal Model an All-around Player?", ECCV 2024, section 4.1.
MMMU: X. Yue et al., CVPR 2024. Open answers: S. Antol et al., "VQA: Visual Question Answering", ICCV 2015.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainer.family import VisionLanguageModel
from trainer.shards import BadSampleError
from trainer.tasks._answers import LETTERS, chosen_option, normalised, vqa_accuracy
from trainer.tasks._items import Item, prepared
from trainer.tasks.contract import TaskResult, batched, read_settings, result

KIND = "visual_question_answering"
TEMPLATE = "{question} {option}"
PROMPT = "{question}\n{options}\nAnswer with the letter of the right option."
OPEN_PROMPT = "{question}\nAnswer with a word or a short phrase."
_MARKER = re.compile(r"<image (\d)>")


@dataclass(frozen=True)
class Question:
    """A question of one image; without options it is an open one."""

    image: torch.Tensor  # (3, S, S)
    text: str
    options: list[str]
    right: int  # of the options
    answers: list[str]  # people's, of an open question
    template: str | None  # of this item alone


@dataclass(frozen=True)
class Asking:
    """How the model is asked."""

    generate: bool  # options are listed and the model writes a letter; else each is a text that fits more or less
    template: str
    prompt: str
    open_prompt: str


def run(folder: str, model: VisionLanguageModel, batch_size: int) -> TaskResult:
    """Accuracy. A multiple choice counts only where the model is right under every rotation of its options.

    `task.json` may hold `answer_by`, "match" (unless given) or "generate"; for "match" a `template` with {question} and
    {option}, which an item may have of its own; for "generate" a `prompt` with {question} and {options}; and
    `open_prompt` for questions without options, which only a family that writes text can answer.
    """
    asking = _asking(folder, read_settings(folder))
    skipped: Counter[str] = Counter()

    def prepare(item: Item) -> Question:
        question = read_question(item, model)
        if not question.options and not model.generates:
            raise BadSampleError("an open question, and the family writes no text")
        return question

    keys, scores, once = list[str](), list[float](), list[float]()
    for batch in batched(prepared(folder, prepare, skipped), batch_size):
        questions = [question for _, question in batch]
        found = [0.0] * len(questions)
        choices = [n for n, question in enumerate(questions) if question.options]
        opened = [n for n, question in enumerate(questions) if not question.options]
        by = _choose_by_writing if asking.generate else _choose_by_match
        for n, (circular, first) in zip(choices, by(model, [questions[n] for n in choices], asking), strict=True):
            found[n] = float(circular)
            once.append(float(first))
        if opened:
            images = torch.stack([questions[n].image for n in opened]).to(model.device)
            prompts = [_fill(asking.open_prompt, question=questions[n].text) for n in opened]
            for n, answer in zip(opened, model.generate(images, prompts), strict=True):
                found[n] = vqa_accuracy(answer, questions[n].answers)
        keys += [key for key, _ in batch]
        scores += found
    more = {"accuracy_one_order": sum(once) / len(once)} if once else {}
    return result(folder, KIND, "accuracy", keys, scores, skipped, more)


def _asking(folder: str, settings: dict[str, Any]) -> Asking:
    how = settings.get("answer_by", "match")
    if how not in ("match", "generate"):
        raise ValueError(f"task: {folder}/task.json: answer_by {how!r} is neither match nor generate")
    template = str(settings.get("template", TEMPLATE))
    if "{option}" not in template:
        raise ValueError(f"task: {folder}/task.json: template {template!r} has no {{option}}")
    prompts = [str(settings.get(name, default)) for name, default in (("prompt", PROMPT), ("open_prompt", OPEN_PROMPT))]
    return Asking(how == "generate", template, *prompts)


def read_question(item: Item, model: VisionLanguageModel) -> Question:
    """Raises BadSampleError where a field is missing or wrong, or the item needs several images."""
    text = item.text("question")
    options = _options(item)
    if "image_2" in item.images or any(int(n) > 1 for part in [text, *options] for n in _MARKER.findall(part)):
        raise BadSampleError("needs several images")
    right, answers = (_right_option(item, options), []) if options else (0, _answers(item))
    template = item.text("template") if "template" in item.fields else None
    if template is not None and "{option}" not in template:
        raise BadSampleError("template without {option}")
    image = model.preprocess(item.image("image" if "image" in item.images else "image_1"))
    return Question(image, _MARKER.sub("", text).strip(), options, right, answers, template)


def _options(item: Item) -> list[str]:
    if item.fields.get("options") not in (None, "", [], "[]"):
        options = item.texts("options")
    else:
        letters = LETTERS[: next((n for n, letter in enumerate(LETTERS) if not item.fields.get(letter)), 0)]
        options = [item.text(letter) for letter in letters]
    if options and not 2 <= len(options) <= len(LETTERS):
        raise BadSampleError("no options")
    return options


def _right_option(item: Item, options: Sequence[str]) -> int:
    """The index of the answer among the options."""
    answer = item.fields.get("answer")
    if isinstance(answer, str):
        letter = LETTERS[: len(options)].find(answer.strip()) if len(answer.strip()) == 1 else -1
        same = [n for n, option in enumerate(options) if normalised(option) == normalised(answer)]
        answer = letter if letter >= 0 else same[0] if len(same) == 1 else None
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(options):
        raise BadSampleError("no answer")
    return answer


def _answers(item: Item) -> list[str]:
    name = "answers" if "answers" in item.fields else "answer"
    value = item.fields.get(name)
    if isinstance(value, list) and all(
        isinstance(one, dict) for one in value
    ):  # VQA: {"answer": ..., "answer_id": ...}
        value = [one.get("answer") for one in value]
    return Item(item.key, {"answer": value}, {}).texts("answer")


def _choose_by_match(
    model: VisionLanguageModel, questions: Sequence[Question], asking: Asking
) -> list[tuple[bool, bool]]:
    """Per question, whether the right option fits best: of all, and in the order given, where the first of equals wins.

    Each option is judged by itself, so rotations change only which of equals is first.
    """
    if not questions:
        return []
    counts = torch.tensor([len(question.options) for question in questions])
    images = torch.stack([question.image for question in questions]).repeat_interleave(counts, dim=0)
    texts = [
        _fill(question.template or asking.template, question=question.text, option=option)
        for question in questions
        for option in question.options
    ]
    size = max(1, len(questions))  # a batch of images as large as the caller's
    parts = [
        model.match_pairs(images[start : start + size].to(model.device), texts[start : start + size])
        for start in range(0, len(texts), size)
    ]
    verdicts = []
    for question, fits in zip(questions, torch.cat(parts).cpu().split(counts.tolist()), strict=True):
        best = fits == fits.max()
        verdicts.append((bool(best[question.right] and best.sum() == 1), int(fits.argmax()) == question.right))
    return verdicts


def _choose_by_writing(
    model: VisionLanguageModel, questions: Sequence[Question], asking: Asking
) -> list[tuple[bool, bool]]:
    """Per question, whether the option that the model's answer names is right: in all rotations, and in the first."""
    verdicts = [list[bool]() for _ in questions]
    most = max((len(question.options) for question in questions), default=0)
    for turn in range(most):
        asked = [n for n, question in enumerate(questions) if turn < len(question.options)]
        turned = [_rotated(questions[n].options, turn) for n in asked]
        images = torch.stack([questions[n].image for n in asked]).to(model.device)
        prompts = [
            _fill(asking.prompt, question=questions[n].text, options="\n".join(map("{}. {}".format, LETTERS, options)))
            for n, options in zip(asked, turned, strict=True)
        ]
        for n, options, answer in zip(asked, turned, model.generate(images, prompts), strict=True):
            choice = chosen_option(answer, options)
            right = None if choice is None else (choice + turn) % len(options)
            verdicts[n].append(right == questions[n].right)
    return [(all(turns), turns[0]) for turns in verdicts]


def _rotated(options: Sequence[str], turn: int) -> list[str]:
    return [*options[turn:], *options[:turn]]


def _fill(template: str, **values: str) -> str:
    """The template with its {names} filled in; nothing that the values hold is taken for a name."""
    return re.sub(r"\{(\w+)\}", lambda name: values.get(name[1], name[0]), template)
