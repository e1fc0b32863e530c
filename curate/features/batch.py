"""A batch of samples and their pixels: each image is decoded once per scale, and only if a feature asks."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from curate.shards import Sample

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
MAX_PIXELS = 100_000_000
ImageFile.LOAD_TRUNCATED_IMAGES = False
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class Header(NamedTuple):
    """What an image says of itself before its pixels are read."""

    width: int
    height: int
    format: str | None
    mode: str


@dataclass
class Batch:
    """Consecutive samples of one shard, in order. Its length never depends on who reads it."""

    shard: str
    samples: Sequence[Sample]
    open_errors: dict[int, str] = field(default_factory=dict)
    """Why an image could not be opened, by position in the batch."""
    decode_errors: dict[int, str] = field(default_factory=dict)
    """Why its pixels could not be read."""
    decoded: set[int] = field(default_factory=set)
    """Positions whose pixels were read."""
    _headers: dict[int, Header] = field(default_factory=dict)
    _unread: dict[int, Image.Image] = field(default_factory=dict)
    _pixels: dict[tuple[int, str, int], Image.Image] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def texts(self) -> list[str | None]:
        return [sample.text for sample in self.samples]

    @cached_property
    def digests(self) -> list[bytes | None]:
        """SHA-256 of each image's bytes."""
        return [hashlib.sha256(s.image).digest() if s.image is not None else None for s in self.samples]

    def open(self, position: int) -> Header | None:
        """What an image's header says; None, and an entry in `open_errors`, if it cannot be opened."""
        if position not in self._headers and position not in self.open_errors:
            data = self.samples[position].image
            if data is None:
                return None
            try:
                image = Image.open(io.BytesIO(data), formats=FORMATS)
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width}x{image.height} pixels, over the limit of {MAX_PIXELS}")
                self._headers[position] = Header(image.width, image.height, image.format, image.mode)
                self._unread[position] = image
            except Exception as error:  # hostile bytes: a codec may raise anything
                self.open_errors[position] = _one_line("image cannot be opened", error)
        return self._headers.get(position)

    def images(self, side: int, mode: str) -> list[Image.Image | None]:
        """Decode every image at the smallest scale whose shorter side is at least `side` pixels.

        JPEGs are scaled by 1/1, 1/2, 1/4 or 1/8 inside the decoder. The scale depends on the image and
        `side` alone, so a feature sees the same pixels whatever else is measured in the same pass.
        """
        return [self._decode(position, side, mode) for position in range(len(self))]

    def grays(self, side: int, size: int, resample: Image.Resampling) -> tuple[np.ndarray, np.ndarray]:
        """Gray images squeezed to `size` x `size`: uint8 (n, size, size), and which of them are real (n,)."""
        out = np.zeros((len(self), size, size), np.uint8)
        images = self.images(side, "L")
        for position, image in enumerate(images):
            if image is not None:
                out[position] = np.asarray(image.resize((size, size), resample))
        return out, np.array([image is not None for image in images], bool)

    def _decode(self, position: int, side: int, mode: str) -> Image.Image | None:
        header = self.open(position)
        if header is None:
            return None
        place = (position, mode, _scale(header, side))
        if place not in self._pixels and position not in self.decode_errors:
            try:
                # Loading changes an image, so only the first decode can go on from the opened header.
                image = self._unread.pop(position, None)
                if image is None:
                    image = Image.open(io.BytesIO(self.samples[position].image or b""), formats=FORMATS)
                image.draft(mode, (side, side))
                self._pixels[place] = to_mode(image, mode)
                self.decoded.add(position)
            except Exception as error:  # hostile bytes: a codec may raise anything
                self.decode_errors[position] = _one_line("image cannot be decoded", error)
        return self._pixels.get(place)


def _scale(header: Header, side: int) -> int:
    """The reduction that `draft` picks: for JPEG the largest of 8, 4, 2, 1 that leaves `side` pixels."""
    if header.format not in ("JPEG", "MPO"):
        return 1
    room = min(header.width, header.height) // side
    return next((scale for scale in (8, 4, 2) if room >= scale), 1)


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Read the pixels as `L` or `RGB`; what is transparent shows white, as on a web page."""
    image.load()
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image)
        image = page.convert("RGB")
    elif image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = Image.fromarray((np.asarray(image, np.float32) / 257).clip(0, 255).astype(np.uint8))
    return image if image.mode == mode else image.convert("RGB").convert(mode)


def _one_line(what: str, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its message holds a memory address
        return f"{what}: not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
    return f"{what}: {' '.join(str(error).split()) or type(error).__name__}"[:300]
