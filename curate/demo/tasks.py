"""Evaluation tasks of every kind, with the truth that only a generated world has, on scenes that the mini-web lacks.

A task is its settings and its items, as plain values: whoever writes them chooses the file format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from typing import Any

import numpy as np

from curate.demo.captions import english, phrase
from curate.demo.files import encode, image_bytes
from curate.demo.plan import NONE, Planned, make_plan
from curate.demo.scenes import Group, Scene, boxes, make_scene, placed, render
from curate.demo.shapes import COLOURS, SHAPES
from curate.demo.site import TEMPLATES

Fields = dict[str, Any]  # of an item: bytes are JPEG images, all else is plain JSON
Maker = Callable[[Iterator[Scene], np.random.Generator], Iterator[Fields]]
_SEEDS = 2**33  # the scenes of tasks are of other seeds than those of a mini-web or of `site.evaluation`
_SIDES = (96, 144)  # pixels: models of the demo see 48


@dataclass(frozen=True, slots=True)
class DemoTask:
    """One evaluation task. `parts` are its items by the name of the folder that they belong in."""

    name: str
    settings: Mapping[str, Any]  # with the `kind`
    parts: Mapping[str, Iterable[Fields]]


def demo_tasks(items: int = 300, *, seed: int = 0, site_seed: int = 0, site_samples: int = 3000) -> list[DemoTask]:
    """A task of every kind with `items` items each; rendered when they are iterated.

    Args:
        seed: tasks of another seed share no scene.
        site_seed, site_samples: of the mini-web that models were trained on: whether they remember its clean pairs, of
            which a small one has fewer than `items`.
    """

    def task(name: str, settings: Fields, make: Maker) -> None:
        place = len(tasks)
        scenes = (make_scene(_SEEDS + 64 * seed + place, number, sides=_SIDES) for number in count())
        rng = np.random.default_rng((_SEEDS, seed, place))
        tasks.append(DemoTask(name, settings, {"test": islice(make(scenes, rng), items)}))

    tasks = list[DemoTask]()
    classes = {"classnames": list(SHAPES), "templates": list(TEMPLATES)}
    task("which-object", {"kind": "zero_shot_classification", **classes}, _classes)
    task("which-object-by-colour", {"kind": "bias", **classes}, _classes)
    task("whose-caption", {"kind": "retrieval"}, partial(_captions, captions=2))
    task("captions", {"kind": "captioning"}, partial(_captions, captions=5))
    task("questions", {"kind": "visual_question_answering"}, _questions)
    task("swapped-words", {"kind": "compositional"}, _swapped)
    task("where", {"kind": "grounding"}, _where)
    task("is-there", {"kind": "hallucination", "template": "a photo of {a} {object}"}, _is_there)
    task("objects-named", {"kind": "caption_hallucination", "objects": {shape: [] for shape in SHAPES}}, _objects)
    parts = {"train": _pairs(site_seed, site_samples), "test": _pairs(2 * _SEEDS + seed, items * 2 + 10)}
    parts = {name: islice(pairs, items) for name, pairs in parts.items()}
    return [*tasks, DemoTask("remembered", {"kind": "memorisation"}, parts)]


def _picture(scene: Scene) -> bytes:
    return encode(render(scene), "jpg", 88)


def _alone(scene: Scene) -> bool:
    return len(scene.groups) == 1 and scene.groups[0].count == 1


def _classes(scenes: Iterator[Scene], rng: np.random.Generator) -> Iterator[Fields]:
    """One object each; its colour is the group."""
    for scene in filter(_alone, scenes):
        yield {"image": _picture(scene), "label": SHAPES.index(scene.label), "group": scene.groups[0].colour}


def _captions(scenes: Iterator[Scene], rng: np.random.Generator, captions: int) -> Iterator[Fields]:
    """No two of the first few hundred have the same objects in the same colours and numbers."""
    seen = set[tuple[Group, ...]]()
    for scene in scenes:
        if scene.groups not in seen or len(seen) > 400:
            seen.add(scene.groups)
            yield {"image": _picture(scene), "captions": [english(scene, rng) for _ in range(captions)]}


def _questions(scenes: Iterator[Scene], rng: np.random.Generator) -> Iterator[Fields]:
    """Which object, which colour, how many, in turn; every number and every place of the answer is as likely."""
    for number, scene in enumerate(scene for scene in scenes if len(scene.groups) == 1):
        group = replace(scene.groups[0], count=1 + number // 3 % 3 if number % 3 == 2 else 1)
        scene = replace(scene, groups=(group,))
        if number % 3 == 0:
            text, template = "Which object is in the picture?", "a photo of a {option}"
            options, right = _four(group.shape, SHAPES, rng), group.shape
        elif number % 3 == 1:
            text, template = f"Which colour is the {group.shape}?", f"a photo of a {{option}} {group.shape}"
            options, right = _four(group.colour, tuple(COLOURS), rng), group.colour
        else:
            text, template = "How many objects are there?", "a photo of {option}"
            phrases = [phrase(replace(group, count=n), with_colour=False) for n in (1, 2, 3)]
            options, right = [phrases[n] for n in rng.permutation(3)], phrases[group.count - 1]
        letter = "ABCD"[options.index(right)]
        yield {
            "image": _picture(scene), "question": text, "options": options, "answer": letter, "template": template,
        }  # fmt: skip


def _four(right: str, names: tuple[str, ...], rng: np.random.Generator) -> list[str]:
    others = [name for name in names if name != right]
    chosen = [right, *(others[n] for n in rng.choice(len(others), 3, replace=False))]
    return [chosen[n] for n in rng.permutation(4)]


def _swapped(scenes: Iterator[Scene], rng: np.random.Generator) -> Iterator[Fields]:
    """Two scenes whose captions are of the same words: the colours, or the places, of two objects are swapped."""
    for number, scene in enumerate(scene for scene in scenes if len(scene.groups) == 2):
        a, b = (replace(group, count=1) for group in scene.groups)
        if number % 2 and a.colour != b.colour:
            other = replace(scene, groups=(replace(a, colour=b.colour), replace(b, colour=a.colour)))
        else:
            other = replace(scene, groups=(b, a))
        pair = replace(scene, groups=(a, b)), replace(other, number=scene.number + 2**31)
        yield {f"image_{n}": _picture(one) for n, one in enumerate(pair)} | {
            f"caption_{n}": f"a photo of {phrase(one.groups[0])} {_RELATIONS[one.relation]} {phrase(one.groups[1])}"
            for n, one in enumerate(pair)
        }


_RELATIONS = {"above": "above", "below": "below", "left": "to the left of", "right": "to the right of"}


def _where(scenes: Iterator[Scene], rng: np.random.Generator) -> Iterator[Fields]:
    """One of two or three objects of different sorts, and its box."""
    for scene in scenes:
        if len(scene.groups) > 1 and all(group.count == 1 for group in scene.groups):
            n = int(rng.integers(len(scene.groups)))
            assert placed(scene)[n].shape == scene.groups[n].shape
            yield {"image": _picture(scene), "phrase": phrase(scene.groups[n]), "box": list(boxes(scene)[n])}


def _is_there(scenes: Iterator[Scene], rng: np.random.Generator) -> Iterator[Fields]:
    """The objects that are there, and as many others."""
    for scene in scenes:
        present = [group.shape for group in scene.groups]
        others = [shape for shape in SHAPES if shape not in present]
        absent = [others[n] for n in rng.choice(len(others), len(present), replace=False)]
        yield {"image": _picture(scene), "present": present, "absent": absent}


def _objects(scenes: Iterator[Scene], rng: np.random.Generator) -> Iterator[Fields]:
    for scene in scenes:
        yield {"image": _picture(scene), "objects": [group.shape for group in scene.groups]}


def _pairs(seed: int, samples: int) -> Iterator[Fields]:
    """The clean pairs of a mini-web, as their page shows them."""

    def usable(item: Planned) -> bool:
        return item.defect == NONE and item.format == "jpg"

    for item in filter(usable, make_plan(seed, samples)):
        yield {"image": image_bytes(item), "captions": [item.caption]}
