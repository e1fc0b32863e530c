"""A batch of samples and their pixels: each image is decoded once per scale, and only if a feature asks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image

from curate.decode import Header, decode_plain, jpeg_scale, open_image, plain_jpeg, reason, to_mode
from curate.shards import Sample


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
    _plain: set[int] = field(default_factory=set)
    _unread: dict[int, Image.Image] = field(default_factory=dict)
    _pixels: dict[tuple[int, str, int], Image.Image] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    def one(self, place: int) -> Batch:
        """A batch of a single sample of this one."""
        return Batch(self.shard, [self.samples[place]])

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
            if (plain := plain_jpeg(data)) is not None:
                self._headers[position] = plain
                self._plain.add(position)
                return plain
            try:
                image = open_image(data)
                self._headers[position] = Header(image.width, image.height, image.format, image.mode)
                self._unread[position] = image
            except Exception as error:  # hostile bytes: a codec may raise anything
                self.open_errors[position] = reason("image cannot be opened", error)
        return self._headers.get(position)

    def images(self, side: int, mode: str) -> list[Image.Image | None]:
        """Decode every image, as `L` or `RGB`, at the smallest scale whose shorter side is at least `side` pixels.

        JPEGs are scaled by 1/1, 1/2, 1/4 or 1/8 inside the decoder. The scale depends on the image and
        `side` alone, so a feature sees the same pixels whatever else is measured in the same pass.
        """
        return [self._decode(position, side, mode) for position in range(len(self))]

    def grays(self, side: int, size: int, resample: Image.Resampling) -> tuple[np.ndarray, np.ndarray]:
        """Gray images squeezed to `size` x `size`: uint8 (n, size, size), and which of them are real (n,).

        What is squeezed is the image and no more: a scaled decode is up to a pixel larger than the image is.
        """
        out = np.zeros((len(self), size, size), np.uint8)
        images = self.images(side, "L")
        for position, image in enumerate(images):
            if image is not None:
                header = self._headers[position]
                scale = jpeg_scale(header, side)
                box = (0, 0, header.width / scale, header.height / scale)
                out[position] = np.asarray(image.resize((size, size), resample, box))
        return out, np.array([image is not None for image in images], bool)

    def _decode(self, position: int, side: int, mode: str) -> Image.Image | None:
        header = self.open(position)
        if header is None:
            return None
        scale = jpeg_scale(header, side)
        place = (position, mode, scale)
        if place not in self._pixels and position not in self.decode_errors:
            data = self.samples[position].image or memoryview(b"")
            try:
                pixels = decode_plain(data, header, scale, mode) if position in self._plain else None
                if pixels is None:
                    # Loading changes an image, so only the first decode can go on from the opened header.
                    image = self._unread.pop(position, None) or open_image(data)
                    image.draft(mode, (side, side))
                    pixels = to_mode(image, mode)
                self._pixels[place] = pixels
                self.decoded.add(position)
            except Exception as error:  # hostile bytes: a codec may raise anything
                self.decode_errors[position] = reason("image cannot be decoded", error)
        return self._pixels.get(place)
