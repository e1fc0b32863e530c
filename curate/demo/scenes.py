"""Rendered scenes with known contents: which objects, which colours, how many, where.

A scene is a plain value made from a seed and a number; rendering it again gives the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from curate.demo.backgrounds import BACKGROUNDS, draw_background
from curate.demo.shapes import COLOURS, SHAPES, draw_object

_COLOUR_NAMES = tuple(COLOURS)
_DRAWING, _CONTENT, _LAYOUT = 1, 2, 3  # random streams of one scene, so that changing one keeps the others


@dataclass(frozen=True, slots=True)
class Group:
    """`count` equal objects (1 to 3)."""

    shape: str
    colour: str
    count: int


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in a picture; `groups[0]` is the main one and gives the class label."""

    seed: int
    number: int
    groups: tuple[Group, ...]
    background: str
    relation: str  # how groups[0] lies to groups[1]: above, below, left, right; the place if alone
    width: int  # pixels
    height: int  # pixels

    @property
    def label(self) -> str:
        return self.groups[0].shape


def make_scene(seed: int, number: int, *, single: bool = False, sides: tuple[int, int] = (160, 320)) -> Scene:
    """Scene `number` of `seed`; `single`: exactly one object. `sides`: range of the longer side, pixels."""
    rng = np.random.default_rng((seed, number, _CONTENT))
    group_count = 1 if single else int(rng.choice((1, 2, 3), p=(0.76, 0.18, 0.06)))
    shapes = rng.choice(len(SHAPES), group_count, replace=False)
    groups = []
    for shape in shapes:
        count = 1 if single or group_count == 3 else int(rng.choice((1, 2, 3), p=(0.84, 0.11, 0.05)))
        groups.append(Group(SHAPES[shape], _COLOUR_NAMES[rng.integers(len(_COLOUR_NAMES))], count))
    relations = ("above", "below", "left", "right") if group_count == 2 else ("left", "middle", "right")
    longer = int(rng.integers(sides[0], sides[1] + 1))
    shorter = int(longer * rng.uniform(0.72, 1.0))
    width, height = (longer, shorter) if rng.random() < 0.65 else (shorter, longer)
    return Scene(
        seed=seed,
        number=number,
        groups=tuple(groups),
        background=BACKGROUNDS[rng.integers(len(BACKGROUNDS))],
        relation=relations[rng.integers(len(relations))],
        width=width,
        height=height,
    )


Cell = tuple[float, float, float, float]  # x0, y0, x1, y1 as shares of the picture


def _cells(scene: Scene) -> list[Cell]:
    """Where each group may be, so that the picture agrees with the caption."""
    if len(scene.groups) == 3:
        return [(0.0, 0.15, 0.36, 0.85), (0.32, 0.15, 0.68, 0.85), (0.64, 0.15, 1.0, 0.85)]
    if len(scene.groups) == 2:
        first: Cell = (0.0, 0.0, 1.0, 0.52) if scene.relation in ("above", "below") else (0.0, 0.0, 0.52, 1.0)
        second: Cell = (0.0, 0.48, 1.0, 1.0) if scene.relation in ("above", "below") else (0.48, 0.0, 1.0, 1.0)
        return [first, second] if scene.relation in ("above", "left") else [second, first]
    if scene.groups[0].count > 1:
        return [(0.0, 0.0, 1.0, 1.0)]
    x0 = {"left": 0.0, "middle": 0.12, "right": 0.24}[scene.relation]
    return [(x0, 0.0, x0 + 0.76, 1.0)]


def _split(cell: Cell, count: int) -> list[Cell]:
    """The cell cut into `count` parts along its longer side."""
    x0, y0, x1, y1 = cell
    if x1 - x0 >= y1 - y0:
        step = (x1 - x0) / count
        return [(x0 + i * step, y0, x0 + (i + 1) * step, y1) for i in range(count)]
    step = (y1 - y0) / count
    return [(x0, y0 + i * step, x1, y0 + (i + 1) * step) for i in range(count)]


@dataclass(frozen=True, slots=True)
class Placed:
    """One object where it is drawn: a square patch of `side` pixels with its upper left corner at (left, top)."""

    shape: str
    colour: str
    left: int
    top: int
    side: int
    angle: float  # degrees
    mirrored: bool

    def patch(self) -> Image.Image:
        """The object as RGBA."""
        return draw_object(self.shape, self.colour, self.side, self.angle, self.mirrored)


def placed(scene: Scene) -> list[Placed]:
    """Every object of the scene, in the order of its groups."""
    layout = np.random.default_rng((scene.seed, scene.number, _LAYOUT))
    objects = []
    for group, cell in zip(scene.groups, _cells(scene), strict=True):
        for x0, y0, x1, y1 in _split(cell, group.count):
            room_x, room_y = (x1 - x0) * scene.width, (y1 - y0) * scene.height
            side = max(24, int(min(room_x, room_y) * layout.uniform(0.76, 1.0)))
            left = int(x0 * scene.width + layout.random() * max(0.0, room_x - side))
            top = int(y0 * scene.height + layout.random() * max(0.0, room_y - side))
            angle, mirrored = float(layout.uniform(-10, 10)), bool(layout.random() < 0.5)
            objects.append(Placed(group.shape, group.colour, left, top, side, angle, mirrored))
    return objects


def boxes(scene: Scene) -> list[Cell]:
    """What each of `placed` covers, without its patch's empty border, as shares of the picture."""
    found = []
    for one in placed(scene):
        x0, y0, x1, y1 = one.patch().getchannel("A").getbbox() or (0, 0, one.side, one.side)
        left, right = (min(1.0, (one.left + x) / scene.width) for x in (x0, x1))
        top, bottom = (min(1.0, (one.top + y) / scene.height) for y in (y0, y1))
        found.append((left, top, right, bottom))
    return found


def render(scene: Scene) -> Image.Image:
    """The scene as an RGB picture of `scene.width` × `scene.height` pixels."""
    drawing = np.random.default_rng((scene.seed, scene.number, _DRAWING))
    picture = draw_background(scene.background, drawing, scene.width, scene.height)
    for one in placed(scene):
        patch = one.patch()
        picture.paste(patch, (one.left, one.top), patch)
    return picture
