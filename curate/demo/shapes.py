"""The ten objects of the demo's scenes, drawn with PIL at twice the size and reduced (antialiasing).

Every object fills a square patch and is drawn in one main colour with a contrasting outline, so that it can
be told apart on any background and still at 32×32 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from PIL import Image, ImageDraw

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (215, 30, 35),
    "green": (30, 150, 55),
    "blue": (30, 80, 210),
    "yellow": (250, 220, 50),
    "purple": (135, 45, 165),
    "orange": (250, 125, 15),
    "white": (250, 250, 248),
    "black": (22, 22, 26),
}
_SUPERSAMPLING = 2
_BROWN: RGB = (110, 72, 40)


class _Pen:
    """Draws in unit coordinates (0 to 1) on a patch of `side` pixels."""

    def __init__(self, side: int, fill: RGB) -> None:
        self.image = Image.new("RGBA", (side, side), (*fill, 0))
        self.draw = ImageDraw.Draw(self.image)
        self.side = side
        self.fill = fill
        light = sum(fill) > 330
        self.line: RGB = (40, 38, 36) if light else (240, 238, 232)
        self.dark: RGB = (fill[0] * 6 // 10, fill[1] * 6 // 10, fill[2] * 6 // 10) if light else self.line
        self.width = max(2, side // 40)

    def polygon(self, points: list[tuple[float, float]], fill: RGB | None = None) -> None:
        scaled = [(x * self.side, y * self.side) for x, y in points]
        self.draw.polygon(scaled, fill=fill or self.fill, outline=self.line, width=self.width)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: RGB | None = None) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill)

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, fill: RGB | None = None) -> None:
        s = self.side
        self.draw.ellipse((x0 * s, y0 * s, x1 * s, y1 * s), fill or self.fill, self.line, self.width)


def _circle(pen: _Pen) -> None:
    pen.ellipse(0.06, 0.06, 0.94, 0.94)


def _square(pen: _Pen) -> None:
    pen.box(0.1, 0.1, 0.9, 0.9)


def _triangle(pen: _Pen) -> None:
    pen.polygon([(0.5, 0.06), (0.96, 0.9), (0.04, 0.9)])


def _star(pen: _Pen) -> None:
    angles = [math.pi * (i / 5 - 0.5) for i in range(10)]
    radii = [0.49 if i % 2 == 0 else 0.2 for i in range(10)]
    pen.polygon([(0.5 + r * math.cos(a), 0.52 + r * math.sin(a)) for a, r in zip(angles, radii, strict=True)])


def _heart(pen: _Pen) -> None:
    points = []
    for i in range(40):
        t = math.tau * i / 40
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((0.5 + x / 36, 0.46 - y / 36))
    pen.polygon(points)


def _house(pen: _Pen) -> None:
    pen.box(0.16, 0.45, 0.84, 0.94)
    pen.polygon([(0.5, 0.05), (0.97, 0.47), (0.03, 0.47)], pen.dark)
    pen.box(0.42, 0.64, 0.58, 0.94, pen.line)
    pen.box(0.23, 0.55, 0.36, 0.7, pen.line)
    pen.box(0.64, 0.55, 0.77, 0.7, pen.line)


def _tree(pen: _Pen) -> None:
    pen.box(0.43, 0.66, 0.57, 0.98, _BROWN)
    for x0, y0, x1, y1 in ((0.1, 0.3, 0.6, 0.74), (0.4, 0.3, 0.9, 0.74), (0.22, 0.03, 0.78, 0.55)):
        pen.ellipse(x0, y0, x1, y1)
    pen.draw.ellipse([v * pen.side for v in (0.25, 0.28, 0.75, 0.66)], fill=pen.fill)


def _fish(pen: _Pen) -> None:
    pen.polygon([(0.66, 0.5), (0.98, 0.24), (0.92, 0.5), (0.98, 0.76)], pen.dark)
    pen.ellipse(0.02, 0.26, 0.76, 0.74)
    pen.polygon([(0.36, 0.29), (0.56, 0.1), (0.58, 0.33)], pen.dark)
    pen.ellipse(0.14, 0.4, 0.24, 0.5, pen.line)


def _car(pen: _Pen) -> None:
    pen.polygon([(0.22, 0.48), (0.34, 0.26), (0.68, 0.26), (0.82, 0.48)])
    pen.polygon([(0.3, 0.47), (0.38, 0.31), (0.5, 0.31), (0.5, 0.47)], pen.line)
    pen.polygon([(0.54, 0.47), (0.54, 0.31), (0.65, 0.31), (0.74, 0.47)], pen.line)
    pen.box(0.02, 0.47, 0.98, 0.7)
    for left in (0.14, 0.64):
        pen.ellipse(left, 0.58, left + 0.23, 0.81, (30, 30, 34))
        pen.ellipse(left + 0.07, 0.65, left + 0.16, 0.74, (200, 200, 205))


def _flower(pen: _Pen) -> None:
    pen.box(0.47, 0.5, 0.53, 0.99, (40, 120, 45))
    pen.polygon([(0.53, 0.9), (0.78, 0.7), (0.8, 0.82)], (40, 120, 45))
    for i in range(6):
        x, y = 0.5 + 0.22 * math.cos(math.tau * i / 6), 0.36 + 0.22 * math.sin(math.tau * i / 6)
        pen.ellipse(x - 0.14, y - 0.14, x + 0.14, y + 0.14)
    pen.ellipse(0.38, 0.24, 0.62, 0.48, (250, 215, 90) if pen.fill != COLOURS["yellow"] else _BROWN)


_DRAWERS: dict[str, Callable[[_Pen], None]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "house": _house,
    "tree": _tree,
    "fish": _fish,
    "car": _car,
    "flower": _flower,
}
SHAPES: tuple[str, ...] = tuple(_DRAWERS)


def draw_object(shape: str, colour: str, side: int, angle: float, mirrored: bool) -> Image.Image:
    """One object as an RGBA patch of `side` × `side` pixels, turned by `angle` degrees."""
    pen = _Pen(side * _SUPERSAMPLING, COLOURS[colour])
    _DRAWERS[shape](pen)
    patch = pen.image.reduce(_SUPERSAMPLING)
    if mirrored:
        patch = patch.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return patch.rotate(angle, Image.Resampling.BILINEAR)
