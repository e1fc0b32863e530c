"""An image of a pool as an endpoint takes it: the file as it lies there where that will do, else a smaller JPEG."""

from __future__ import annotations

import base64
import io

from PIL import Image, ImageOps

from curate.decode import open_image, plain_jpeg, to_mode

QUALITY = 90
_SENT_AS_IS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}  # what all the known endpoints take
_ORIENTATION = 0x0112


class UnsendableImage(Exception):
    """The bytes are no image that can be read; the text is the same for all of them."""


def data_url(data: bytes, max_side: int, max_bytes: int) -> str:
    """The image as a data URL, its longer side at most `max_side` pixels.

    The file itself goes out if it is a JPEG, PNG or WebP within the limits, upright, and not animated; any other is
    read, turned upright, made smaller, and encoded as JPEG (what is transparent shows white).

    Raises:
        UnsendableImage: it cannot be read.
    """
    header = plain_jpeg(memoryview(data))
    upright = b"Exif\0\0" not in data[:65536]  # where a JPEG keeps the word that it lies on its side
    if header is not None and upright and max(header.width, header.height) <= max_side and len(data) <= max_bytes:
        return _url("image/jpeg", data)
    try:
        return _read(data, max_side, max_bytes)
    except Exception as error:  # whatever a codec raises on hostile bytes
        raise UnsendableImage("the image cannot be read") from error


def _read(data: bytes, max_side: int, max_bytes: int) -> str:
    image = open_image(memoryview(data))
    kind = _SENT_AS_IS.get(image.format or "")
    small = max(image.size) <= max_side and len(data) <= max_bytes
    if kind and small and not _turned(image) and getattr(image, "n_frames", 1) == 1:
        return _url(kind, data)
    return _url("image/jpeg", _smaller(image, max_side))


def _smaller(image: Image.Image, max_side: int) -> bytes:
    if max(image.size) > max_side:
        image.draft("RGB", (max_side, max_side))  # libjpeg reads it at a fraction of its size
    pixels = to_mode(ImageOps.exif_transpose(image) if _turned(image) else image, "RGB")
    pixels.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    pixels.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def _turned(image: Image.Image) -> bool:
    """Whether its EXIF data says that it lies on its side or is mirrored; data that cannot be read says nothing."""
    try:
        return image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:
        return False


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
