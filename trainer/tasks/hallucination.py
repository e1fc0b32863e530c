"""Hallucination: does the model see objects that are not there?

Items hold an image and either the objects `present` and `absent`, as lists, or one question as POPE's files have it:
the `object`, or `text` ("Is there a dog in the image?"), and the `label` yes or no.

Y. Li et al., "Evaluating Object Hallucination in Large Vision-Language Models" (POPE), EMNLP 2023: accuracy, precision,
recall, F1 and the share of yes. A family that writes text is asked POPE's question where `task.json` says `"answer_by":
"generate"`. By default a yes is worked out from how well "a photo with a dog" fits: yes where it fits better than it
does on average for this object and for this image together (the residual of rows and columns), for which neither
threshold nor label is needed.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
import torch

from trainer.family import VisionLanguageModel
from trainer.shards import BadSampleError
from trainer.tasks._answers import says_yes
from trainer.tasks._items import Item, prepared
from trainer.tasks.contract import TaskResult, batched, read_settings, result

KIND = "hallucination"
TEMPLATE = "a photo with {a} {object}"
PROMPT = "Is there {a} {object} in the image?"
_POPE = re.compile(r"is there an? (.+?) in the im\w*ge\W*$", re.IGNORECASE)
Asked = list[tuple[str, bool]]  # objects, and whether they are there


@dataclass(frozen=True)
class Answers:
    """One per question: float or bool (questions,)."""

    keys: list[str]
    true: np.ndarray
    said: np.ndarray
    more: dict[str, float]


def run(folder: str, model: VisionLanguageModel, batch_size: int) -> TaskResult:
    """Accuracy over the questions, with precision, recall and F1 of "yes" and its share.

    `pair_accuracy`, where answers come from how well texts fit: the share of pairs of a present and an absent object of
    the same image in which the present one is more of a yes; chance is 1/2.
    """
    settings = read_settings(folder)
    how = settings.get("answer_by", "match")
    if how not in ("match", "generate"):
        raise ValueError(f"task: {folder}/task.json: answer_by {how!r} is neither match nor generate")
    skipped: Counter[str] = Counter()
    if how == "match":
        template = str(settings.get("template", TEMPLATE))
        answers = _by_match(folder, model, batch_size, template, skipped)
    else:
        answers = _by_writing(folder, model, batch_size, str(settings.get("prompt", PROMPT)), skipped)
    more = yes_metrics(answers.true, answers.said) | answers.more if answers.keys else {}
    return result(folder, KIND, "accuracy", answers.keys, answers.true == answers.said, skipped, more)


def yes_metrics(true: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of "yes" and its share, of bool (questions,); 0 where there is nothing to divide by."""
    both = float((true & said).sum())
    precision, recall = both / max(1, said.sum()), both / max(1, true.sum())
    f1 = 2 * precision * recall / (precision + recall) if both else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "yes_rate": float(said.mean())}


def read_questions(item: Item) -> Asked:
    """The objects asked about.

    Raises:
        BadSampleError: there is none, or the label is neither yes nor no.
    """
    if "present" in item.fields or "absent" in item.fields:
        parts = [(item.fields.get(name), name, there) for name, there in (("present", True), ("absent", False))]
        asked = [(thing, there) for value, name, there in parts if value for thing in item.texts(name)]
        if not asked:
            raise BadSampleError("no object")
        return asked
    label = item.fields.get("label")
    there = {"yes": True, "no": False}.get(str(label).strip().lower(), label)
    if not isinstance(there, bool):
        raise BadSampleError("no label")
    if "object" in item.fields:
        return [(item.text("object"), there)]
    if not (found := _POPE.search(item.text("text"))):
        raise BadSampleError("no object")
    return [(found[1], there)]


def _by_match(
    folder: str, model: VisionLanguageModel, batch_size: int, template: str, skipped: Counter[str]
) -> Answers:
    items = list[tuple[str, str, Asked]]()
    images = list[torch.Tensor]()
    rows = dict[str, int]()  # of the scores, by image: POPE asks about each image in several lines
    for batch in batched(prepared(folder, lambda item: _prepare(item, model), skipped), batch_size):
        items += [(key, digest, asked) for key, (_, digest, asked) in batch]
        fresh = {digest: image for _, (image, digest, _) in batch if digest not in rows}
        if fresh:
            rows |= {digest: len(rows) + n for n, digest in enumerate(fresh)}
            stacked = torch.stack(list(fresh.values()))
            images.append(model.embed_images(stacked.to(model.device)) if model.embeds else stacked)
    if not items:
        return Answers([], np.empty(0), np.empty(0), {})
    objects = sorted({thing for _, _, asked in items for thing, _ in asked})
    texts = [_fill(template, thing) for thing in objects]
    if model.embeds:
        fits = torch.cat(images) @ model.embed_texts(texts).T
    else:
        fits = torch.cat([model.match(part.to(model.device), texts) for part in images])
    scores = fits.double().cpu().numpy()
    residual = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
    place = {thing: n for n, thing in enumerate(objects)}
    flat = [(rows[digest], place[thing], there) for _, digest, asked in items for thing, there in asked]
    chosen, columns, true = (np.array(column) for column in zip(*flat, strict=True))
    keys = [f"{key}/{thing}" for key, _, asked in items for thing, _ in asked]
    values = residual[chosen, columns]
    pairs = pair_accuracy([digest for _, digest, asked in items for _ in asked], true, values)
    return Answers(keys, true, values > 1e-12, pairs)


def pair_accuracy(images: list[str], true: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """The share of pairs of a present and an absent object of one image whose present one is higher; ties are half."""
    sides = defaultdict[str, tuple[list[float], list[float]]](lambda: ([], []))
    for image, there, value in zip(images, true, values, strict=True):
        sides[image][int(there)].append(value)
    wins = total = 0.0
    for absent, present in sides.values():
        above = np.subtract.outer(present, absent)
        wins += float((above > 0).sum() + (above == 0).sum() / 2)
        total += above.size
    return {"pair_accuracy": wins / total} if total else {}


def _by_writing(
    folder: str, model: VisionLanguageModel, batch_size: int, prompt: str, skipped: Counter[str]
) -> Answers:
    keys, true, said = list[str](), list[bool](), list[bool]()
    for batch in batched(prepared(folder, lambda item: _prepare(item, model), skipped), batch_size):
        flat = [(key, image, thing, there) for key, (image, _, asked) in batch for thing, there in asked]
        for part in batched(iter(flat), batch_size):
            images = torch.stack([image for _, image, _, _ in part]).to(model.device)
            said += map(says_yes, model.generate(images, [_fill(prompt, thing) for _, _, thing, _ in part]))
            true += [there for _, _, _, there in part]
            keys += [f"{key}/{thing}" for key, _, thing, _ in part]
    return Answers(keys, np.array(true), np.array(said), {})


def _prepare(item: Item, model: VisionLanguageModel) -> tuple[torch.Tensor, str, Asked]:
    asked = read_questions(item)
    image = item.image()
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    return model.preprocess(image), digest, asked


def _fill(template: str, thing: str) -> str:
    return template.replace("{a}", "an" if thing[0].lower() in "aeiou" else "a").replace("{object}", thing)
