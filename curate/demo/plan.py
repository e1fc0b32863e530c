"""What the mini-web will hold: for each image-text pair its scene, caption and planted defect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from curate.demo.captions import english, phrase
from curate.demo.languages import LANGUAGES, foreign
from curate.demo.scenes import Scene, make_scene
from curate.errors import RequestError

NONE = "none"
COPIES = ("exact_copy", "reencoded", "resized", "cropped")
# Shares of all pairs; the rest is clean. A pair has at most one defect.
SHARES: Mapping[str, float] = MappingProxyType(
    {
        "swapped_caption": 0.3,
        "exact_copy": 0.02,
        "reencoded": 0.02,
        "resized": 0.02,
        "cropped": 0.02,
        "boilerplate_caption": 0.05,
        "other_language": 0.04,
        "blank_image": 0.02,
        "tiny_image": 0.02,
        "truncated_file": 0.01,
        "dead_link": 0.01,
    }
)
DEFECTS: tuple[str, ...] = (NONE, *SHARES)
# Most boilerplate is the same few words of a page's template again and again; the rest is names of files.
_TEMPLATE_WORDS = (
    "Click to enlarge",
    "Click here to view the full size image",
    "Share this on social media",
    "View larger image",
    "Add to cart",
)
_FILE_NAMES = (
    "IMG_{n}.JPG",
    "DSC0{n}.jpg",
    "image {n}",
    "Product image {n}",
    "Stock photo ID {n}",
    "Photo gallery {n}",
    "Untitled-{n}",
)
_TEMPLATE_SHARE = 0.75
_FORMATS = ("jpg", "png", "webp")
_FORMAT_SHARES = (0.84, 0.08, 0.08)


@dataclass(frozen=True, slots=True)
class Planned:
    """One image-text pair of the mini-web. `copy_of` is the number of the original, or -1."""

    number: int
    scene: Scene
    path: str  # URL path, starting with /
    caption: str
    true_caption: str
    defect: str
    copy_of: int
    language: str

    @property
    def format(self) -> str:
        return self.path.rsplit(".", 1)[1]


def make_plan(seed: int, samples: int, shares: Mapping[str, float] = SHARES) -> list[Planned]:
    """`samples` clean pairs plus defects, so that each defect has its share of all pairs; in shuffled order.

    Raises RequestError for an unknown defect, or shares that are negative or reach 1 together.
    """
    unknown = set(shares) - set(SHARES)
    if unknown:
        raise RequestError(f"shares: unknown defect {sorted(unknown)[0]!r}; known are {', '.join(SHARES)}")
    if samples < 2 or min(shares.values(), default=0.0) < 0 or sum(shares.values()) >= 0.95:
        raise RequestError("samples must be 2 or more, and shares 0 or more and below 0.95 together")
    total = samples / (1 - sum(shares.values()))
    defects = [NONE] * samples
    for defect, share in shares.items():
        defects += [defect] * round(total * share)
    rng = np.random.default_rng((seed, 11))
    order = rng.permutation(len(defects))
    plan = [_planned(seed, number, defects[index]) for number, index in enumerate(order)]
    return _with_copies(_with_swaps(plan, rng), seed, rng)


def _planned(seed: int, number: int, defect: str) -> Planned:
    rng = np.random.default_rng((seed, number, 12))
    scene = make_scene(seed, number)
    true_caption = caption = english(scene, rng)
    language = "en"
    if defect == "boilerplate_caption":
        choices = _TEMPLATE_WORDS if rng.random() < _TEMPLATE_SHARE else _FILE_NAMES
        caption = choices[int(rng.integers(len(choices)))].format(n=int(rng.integers(1000, 9999)))
    elif defect == "other_language":
        language = LANGUAGES[int(rng.integers(len(LANGUAGES)))]
        caption = foreign(scene, language, rng)
    extension = _FORMATS[int(rng.choice(3, p=_FORMAT_SHARES))]
    name = f"{int(rng.integers(16**8)):08x}{number:05d}"
    path = f"/img/{name[:1]}/{name}.{extension}"
    return Planned(number, scene, path, caption, true_caption, defect, -1, language)


def _with_swaps(plan: list[Planned], rng: np.random.Generator) -> list[Planned]:
    """Gives every pair that shall be swapped the caption of another one that shows none of its objects."""
    pending = [item.number for item in plan if item.defect == "swapped_caption"]
    result = list(plan)
    for number in pending:
        own = {group.shape for group in plan[number].scene.groups}
        while True:
            other = plan[int(rng.integers(len(plan)))]
            if own.isdisjoint(group.shape for group in other.scene.groups):
                break
        caption = english(other.scene, rng)  # in other words, so that the text is no copy of the other's
        result[number] = replace(plan[number], caption=caption)
    return result


def _with_copies(plan: list[Planned], seed: int, rng: np.random.Generator) -> list[Planned]:
    """Turns the pairs that shall be copies into copies of clean pairs, no clean one twice while they last."""
    clean = [item.number for item in plan if item.defect == NONE]
    originals = iter(int(n) for n in rng.permutation(clean))
    result = list(plan)
    for item in plan:
        if item.defect not in COPIES:
            continue
        number = next(originals, clean[0])
        original = plan[number]
        caption = original.caption if rng.random() < 0.5 else english(original.scene, rng)
        extension = original.format if item.defect == "exact_copy" else "jpg"
        path = f"/mirror/{seed}/{item.path.rsplit('/', 1)[1].rsplit('.', 1)[0]}.{extension}"
        result[item.number] = replace(
            item,
            scene=original.scene,
            caption=caption,
            true_caption=original.true_caption,
            copy_of=number,
            path=path,
        )
    return result


def object_names(scene: Scene) -> list[str]:
    """The scene's objects in words, as ["two red stars", "a blue house"]."""
    return [phrase(group) for group in scene.groups]
