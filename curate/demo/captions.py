"""English captions of scenes, in the varied wording of web pages; every one says what is in the picture."""

from __future__ import annotations

import numpy as np

from curate.demo.scenes import Group, Scene

# Not every caption tells all: what captions agree on, the objects, is what a small model learns first.
_COLOUR_NAMED = 0.5  # share of captions that name the colours
_BACKGROUND_NAMED = 0.25  # share of captions that name the background
_NUMBERS = {2: "two", 3: "three"}
_PLURALS = {"fish": "fish"}  # all others take an s

_ALONE = (
    "a photo of {a} on a {bg} background",
    "{a} in front of a {bg} wall, {tail}",
    "this picture shows {a}, {tail}",
    "my favourite {o} from the collection, placed {where}, {tail}",
    "close-up of {a} against a {bg} backdrop",
    "we found {a} here and took a picture of it",
    "a picture of {a}, seen {where} of the frame",
    "here you can see {a} on some {bg} paper",
    "{a} that my daughter made for the school fair",
    "handmade {o} with a {bg} background, {tail}",
    "the one with {a} is my favourite picture of the day",
    "an image of {a} {where}, with a {bg} pattern behind it",
    "a drawing of {a}, {tail}",
    "there is {a} {where} of this {bg} poster",
    "look at this lovely {o}, {tail}",
    "{a} printed on a {bg} card that came in the mail",
)
_PAIR = (
    "{a} {rel} {b} on a {bg} background",
    "a photo of {a} {rel} {b}",
    "this picture shows {a} {rel} {b}, {tail}",
    "here you can see {a} {rel} {b}, {tail}",
    "{a} and {b} together in one picture, {tail}",
    "a {bg} card with {a} {rel} {b}",
    "we painted {a} {rel} {b} for the front door",
    "notice how {a} was placed {rel} {b} in this drawing",
)
_THREE = (
    "a picture with {a}, {b} and {c} next to each other",
    "{a}, {b} and {c} in a row on a {bg} background",
    "from left to right you can see {a}, {b} and {c}",
    "this poster shows {a}, {b} and {c}, {tail}",
    "a photo of {a}, {b} and {c} on the {bg} wall",
)
_TAILS = (
    "taken on a sunny afternoon in the garden",
    "from our trip to the coast last summer",
    "now available in the shop for a small price",
    "as seen at the exhibition in town last week",
    "photographed in the evening light at home",
    "one of the best that we have ever seen",
    "and we think that it looks really nice",
    "which was a birthday gift from my sister",
    "with free shipping for all the new customers",
    "the second part of our weekly craft series",
    "made by the children of the local school",
    "shot with an old camera and a new lens",
)
_WHERE = {"left": "on the left side", "middle": "in the middle", "right": "on the right side"}
_RELATIONS = {"above": "above", "below": "below", "left": "to the left of", "right": "to the right of"}


def phrase(group: Group, *, with_colour: bool = True) -> str:
    """The group in words, as "a red star" or "two blue fish", or "a star" without the colour."""
    noun = group.shape if group.count == 1 else _PLURALS.get(group.shape, group.shape + "s")
    words = f"{group.colour} {noun}" if with_colour else noun
    if group.count > 1:
        return f"{_NUMBERS[group.count]} {words}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def english(scene: Scene, rng: np.random.Generator) -> str:
    """A true English caption of the scene; another call with the same generator words it differently."""
    several = scene.groups[0].count > 1
    with_background = rng.random() < _BACKGROUND_NAMED
    templates = [
        template
        for template in (_ALONE, _PAIR, _THREE)[len(scene.groups) - 1]
        if ("{bg}" in template) == with_background and not (several and _speaks_of_one(template))
    ]
    with_colour = rng.random() < _COLOUR_NAMED
    phrases = [phrase(group, with_colour=with_colour) for group in scene.groups]
    caption = _pick(templates, rng).format(
        **dict(zip("abc", phrases, strict=False)),
        o=phrases[0].split(" ", 1)[1],
        bg=scene.background,
        tail=_pick(_TAILS, rng),
        where=_WHERE.get(scene.relation, "in the middle"),
        rel=_RELATIONS.get(scene.relation, "next to"),
    )
    if rng.random() < 0.6:
        caption = caption[0].upper() + caption[1:]
    return caption + ("." if rng.random() < 0.25 else "")


def _speaks_of_one(template: str) -> bool:
    """Templates whose wording only fits a single object at a known place."""
    return "{o}" in template or "{where}" in template or " it" in template or "came in" in template


def _pick(choices: tuple[str, ...] | list[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
