"""Copies of a photo as the web makes them: what a near-duplicate filter is asked to find."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

Copy = Callable[[Image.Image, np.random.Generator], Image.Image]


def crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Cut shares of the width or height off each side."""
    w, h = image.size
    return image.crop((round(w * left), round(h * top), w - round(w * right), h - round(h * bottom)))


def every_side(share: float) -> Copy:
    return lambda image, _: crop(image, share, share, share, share)


def uneven(most: float) -> Copy:
    """A crop of 0 to `most` on each side, each drawn by itself."""
    return lambda image, random: crop(image, *random.uniform(0, most, 4))


def one_side(share: float) -> Copy:
    def cut(image: Image.Image, random: np.random.Generator) -> Image.Image:
        sides = np.zeros(4)
        sides[random.integers(4)] = share
        return crop(image, *sides)

    return cut


def bordered(pixels: int, colour: str) -> Copy:
    return lambda image, _: ImageOps.expand(image, pixels, colour)


def letterbox(share: float) -> Copy:
    """Black bars above and below."""

    def add(image: Image.Image, _: np.random.Generator) -> Image.Image:
        bar = round(image.height * share)
        return ImageOps.expand(image, (0, bar, 0, bar), "black")

    return add


def corner_text(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """White letters on a dark plate, 35 % by 12 % of the image, in a corner drawn by chance."""
    image = image.copy()
    w, h = round(image.width * 0.35), round(image.height * 0.12)
    plate = Image.new("RGB", (w, h), "black")
    font = ImageFont.load_default(h * 0.6)
    ImageDraw.Draw(plate).text((w / 2, h / 2), "example.com", "white", font, anchor="mm")
    place = ((0, image.width - w)[random.integers(2)], (0, image.height - h)[random.integers(2)])
    image.paste(Image.blend(image.crop((*place, place[0] + w, place[1] + h)), plate, 0.8), place)
    return image


def corner_logo(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """An opaque disc, a fifth of the shorter side, in a corner drawn by chance."""
    image = image.copy()
    side = round(min(image.size) * 0.2)
    x, y = (4, image.width - side - 4)[random.integers(2)], (4, image.height - side - 4)[random.integers(2)]
    colour = tuple(int(c) for c in random.integers(0, 256, 3))
    ImageDraw.Draw(image).ellipse((x, y, x + side, y + side), fill=colour, outline="white", width=3)
    return image


def middle_text(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Half transparent white letters across the middle."""
    layer = Image.new("RGBA", image.size, (255, 255, 255, 0))
    font = ImageFont.load_default(image.width * 0.14)
    at = (image.width / 2, image.height / 2)
    ImageDraw.Draw(layer).text(at, "SAMPLE PHOTO", (255, 255, 255, 140), font, anchor="mm")
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def scaled(share: float) -> Copy:
    return lambda image, _: image.resize(
        (round(image.width * share), round(image.height * share)), Image.Resampling.LANCZOS
    )


def squeezed(share: float) -> Copy:
    return lambda image, _: image.resize((round(image.width * share), image.height), Image.Resampling.BICUBIC)


def turned(degrees: float) -> Copy:
    """A small turn, with black corners."""
    return lambda image, random: image.rotate(random.choice([-degrees, degrees]), Image.Resampling.BICUBIC)


def noisy(sigma: float) -> Copy:
    def add(image: Image.Image, random: np.random.Generator) -> Image.Image:
        levels = np.asarray(image, np.float32)
        return Image.fromarray((levels + random.normal(0, sigma, levels.shape)).clip(0, 255).astype(np.uint8))

    return add


def enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance], factor: float) -> Copy:
    return lambda image, _: kind(image).enhance(factor)


def chain(*steps: Copy) -> Copy:
    def run(image: Image.Image, random: np.random.Generator) -> Image.Image:
        for step in steps:
            image = step(image, random)
        return image

    return run


def same(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image


def mirrored(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(image)


def transposed(method: Image.Transpose) -> Copy:
    return lambda image, _: image.transpose(method)


QUALITY = {"JPEG quality 40": 40, "JPEG quality 10": 10, "crop 5 %, quality 40": 40, "half size, watermark": 60}
COPIES: dict[str, Copy] = {
    "half size": scaled(0.5),
    "JPEG quality 40": same,
    "grayscale": lambda image, _: image.convert("L"),
    "brighter": enhanced(ImageEnhance.Brightness, 1.3),
    "crop 2 % a side": every_side(0.02),
    "border of 4 pixels": bordered(4, "white"),
    "corner watermark": corner_text,
    "crop 5 % a side": every_side(0.05),
    "crop 10 % a side": every_side(0.10),
    "mirror": mirrored,
    "turned by 90°": transposed(Image.Transpose.ROTATE_90),
    "turned by 180°": transposed(Image.Transpose.ROTATE_180),
    "turned by 270°": transposed(Image.Transpose.ROTATE_270),
    "JPEG quality 10": same,
    "quarter size": scaled(0.25),
    "blur of 2 pixels": lambda image, _: image.filter(ImageFilter.GaussianBlur(2)),
    "noise": noisy(20),
    "colours stronger": enhanced(ImageEnhance.Color, 2),
    "contrast stronger": enhanced(ImageEnhance.Contrast, 1.5),
    "darker": enhanced(ImageEnhance.Brightness, 0.6),
    "corner logo": corner_logo,
    "text across the middle": middle_text,
    "black border of 10 pixels": bordered(10, "black"),
    "red border of 20 pixels": bordered(20, "red"),
    "bars of 12 % above and below": letterbox(0.12),
    "crop 3 % a side": every_side(0.03),
    "crop 7 % a side": every_side(0.07),
    "crop 8 % of one side": one_side(0.08),
    "uneven crop, up to 5 % a side": uneven(0.05),
    "uneven crop, up to 10 % a side": uneven(0.10),
    "squeezed to 90 %": squeezed(0.9),
    "tilted by 2°": turned(2),
    "tilted by 3°": turned(3),
    "crop 5 %, quality 40": every_side(0.05),
    "half size, watermark": chain(scaled(0.5), corner_text),
    "crop 3 %, watermark": chain(every_side(0.03), corner_text),
    "mirror, crop 5 %": chain(mirrored, every_side(0.05)),
}


def copy_of(photo: bytes, name: str, seed: int) -> bytes:
    """A JPEG of a photo, changed as `name` says; the same seed gives the same copy."""
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    out = io.BytesIO()
    COPIES[name](image, np.random.default_rng(seed)).save(out, "JPEG", quality=QUALITY.get(name, 90))
    return out.getvalue()
