"""Image bytes to a header and to pixels at a scale, the same whichever of two decoders read them.

Plain JPEGs, nearly all of the web's, go straight from the shard's bytes to libjpeg-turbo; everything else, and
every JPEG that it or the check of the header does not like, goes to Pillow, whose word is final. Underneath, both
are the same library and give the same pixels: docs/decisions/0007-jpeg-decoder.md.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageFile, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
MAX_PIXELS = 100_000_000
ImageFile.LOAD_TRUNCATED_IMAGES = False
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

_SCALES = (8, 4, 2)
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, Huffman coded
_SKIPPED = {0xC4, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # Huffman tables, restart interval, comment, application data
_SCAN, _TABLES, _JFIF, _PROFILE, _ADOBE = 0xDA, 0xDB, 0xE0, 0xE2, 0xEE


class Header(NamedTuple):
    """What an image says of itself before its pixels are read."""

    width: int
    height: int
    format: str | None
    mode: str


def plain_jpeg(data: memoryview) -> Header | None:
    """The header of a JPEG with nothing unusual in it; None for anything else, which Pillow should look at."""
    if data[:2] != b"\xff\xd8":
        return None
    frame: Header | None = None
    at = 2
    try:
        while data[at] == 0xFF:
            marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
            if marker == _SCAN:
                return frame if at + 2 + length <= len(data) else None
            if marker in _FRAMES and frame is None:
                frame = _frame(data, at + 4, length)
                if frame is None:
                    return None
            elif not _plain(data, at + 4, marker, length):
                return None
            at += 2 + length
    except IndexError:  # it ends in its header
        pass
    return None


def _frame(data: memoryview, at: int, length: int) -> Header | None:
    """The size and mode in a start-of-frame segment: 8 bits in one or three components."""
    height, width = data[at + 1] << 8 | data[at + 2], data[at + 3] << 8 | data[at + 4]
    components = data[at + 5]
    usual = data[at] == 8 and components in (1, 3) and length == 8 + 3 * components
    if not usual or not 0 < width * height <= MAX_PIXELS:
        return None
    return Header(width, height, "JPEG", "L" if components == 1 else "RGB")


def _plain(data: memoryview, at: int, marker: int, length: int) -> bool:
    """Whether a segment is one that every decoder reads alike."""
    if marker == _TABLES:  # 8-bit quantization tables, whole ones
        return (length - 2) % 65 == 0 and all(data[place] < 4 for place in range(at, at + length - 2, 65))
    if marker == _JFIF:
        return length >= 16 or data[at : at + 4] != b"JFIF"
    if marker == _PROFILE:  # neither several pictures in a file, nor a broken colour profile
        return data[at : at + 4] != b"MPF\0" and (length >= 16 or data[at : at + 4] != b"ICC_")
    if marker == _ADOBE:  # luma and chroma, as JFIF has it
        return data[at : at + 5] != b"Adobe" or (length >= 14 and data[at + 11] == 1)
    return marker in _SKIPPED and length >= 2


def decode_plain(data: memoryview, header: Header, scale: int, mode: str) -> Image.Image | None:
    """Decode a plain JPEG as `L` or `RGB` at 1/scale; None if it is damaged, or is not what its header said."""
    height, width = scaled(header.height, scale), scaled(header.width, scale)
    room = {} if scale == 1 else {"min_height": height, "min_width": width, "min_factor": 1}
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if mode == "L" else mode, **room)
    except Exception:  # hostile bytes; Pillow says what is wrong with them
        return None
    if pixels.shape[:2] != (height, width):
        return None
    return Image.fromarray(pixels[:, :, 0] if mode == "L" else pixels)


def open_image(data: memoryview) -> Image.Image:
    """Open an image with Pillow and check its size; no pixel is read.

    Raises:
        Exception: whatever a codec raises on hostile bytes.
    """
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels, over the limit of {MAX_PIXELS}")
    return image


def jpeg_scale(header: Header, side: int) -> int:
    """The largest of 8, 4, 2, 1 that leaves a JPEG's shorter side `side` pixels; `Image.draft` picks the same."""
    if header.format not in ("JPEG", "MPO"):
        return 1
    room = min(header.width, header.height) // side
    return next((scale for scale in _SCALES if room >= scale), 1)


def scaled(length: int, scale: int) -> int:
    """How many pixels a side of `length` has in a decode at 1/scale: the last may lie partly outside the image."""
    return -(-length // scale)


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


def reason(what: str, error: Exception) -> str:
    """An error as one line of at most 300 characters."""
    if isinstance(error, UnidentifiedImageError):  # its message holds a memory address
        return f"{what}: not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
    return f"{what}: {' '.join(str(error).split()) or type(error).__name__}"[:300]
