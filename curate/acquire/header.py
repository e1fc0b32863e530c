"""What a downloaded file must be to become a sample: an image by its header, within the limits, and the file meant."""

from __future__ import annotations

import hashlib
import io
import re
from functools import cache
from typing import Any, Protocol

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
HASHES = ("sha256", "md5")  # columns of pairs that name the file; the first that a row fills is checked
EXPECTED = "expected_hash"  # column of the shards that holds it, as "sha256:9f86…"
_HEX = {"sha256": re.compile("[0-9a-f]{64}"), "md5": re.compile("[0-9a-f]{32}")}


class SizeLimits(Protocol):
    """What an image may measure, in pixels."""

    @property
    def min_side(self) -> int: ...
    @property
    def max_pixels(self) -> int: ...
    @property
    def max_aspect_ratio(self) -> float: ...


@cache
def _readable_formats() -> tuple[str, ...]:
    """Those of the formats that this PIL has a reader for; naming another would be an error."""
    from PIL import Image

    Image.init()
    Image.MAX_IMAGE_PIXELS = None  # the limits have their own
    return tuple(name for name in _FORMATS if name in Image.OPEN)


class HeaderCheck:
    """Stands in for img2dataset's Resizer: keeps the original bytes, and reads only the header for the size.

    Nothing is decoded, so a decompression bomb is just a large number in a header.
    """

    def __init__(self, limits: SizeLimits) -> None:
        self._limits = limits

    def __call__(self, stream: io.BytesIO, expected: str | None = None) -> tuple[Any, ...]:
        """(bytes, width, height, original width, original height, error text)

        `expected` is a hash as in the column EXPECTED. img2dataset hands it over as the boxes to blur: its own check of
        hashes takes a row without one for a wrong file.
        """
        content = stream.read()
        problem = wrong_hash(content, expected) or ("empty: 0 bytes" if not content else None)
        if problem:
            return (*[None] * 5, problem)
        try:
            width, height = _size(content)
        except Exception as error:  # PIL's readers raise nearly anything on hostile bytes
            return (*[None] * 5, f"not_an_image: {type(error).__name__}")
        problem = self._problem(width, height)
        if problem:
            return (*[None] * 5, f"{problem}: {width}×{height} pixels")
        return content, width, height, width, height, None

    def _problem(self, width: int, height: int) -> str | None:
        shorter, longer = sorted((width, height))
        if shorter < max(1, self._limits.min_side):
            return "too_small"
        if width * height > self._limits.max_pixels:
            return "too_many_pixels"
        return "too_long" if longer / shorter > self._limits.max_aspect_ratio else None


def _size(content: bytes) -> tuple[int, int]:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=_readable_formats()) as image:
        return image.size


def wrong_hash(content: bytes, expected: str | None) -> str | None:
    """The error text where the content is not the file that `expected` names, "algorithm:hex"."""
    if not expected:
        return None
    name, _, digest = expected.partition(":")
    digest = digest.strip().lower()
    if name not in _HEX or not _HEX[name].fullmatch(digest):
        return f"wrong_hash: the pair's is no {name} in hex"
    found = hashlib.new(name, content, usedforsecurity=False).hexdigest()
    return None if found == digest else f"wrong_hash: {name} {found}"
