"""From encoded bytes to square uint8 arrays, and random changes to them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from trainer.scales import Scale
from trainer.shards import BadSampleError, Sample

MAX_PIXELS = 64_000_000


def open_image(data: bytes, at_least: int = 0) -> Image.Image:
    """Decodes to RGB; a JPEG at the smallest of libjpeg's scales with both sides >= `at_least` pixels.

    Raises:
        BadSampleError: it is not a JPEG, PNG or WebP image, it is damaged, or has over 64 megapixels.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
        if image.width * image.height > MAX_PIXELS:
            raise BadSampleError("too many pixels")
        if at_least:
            image.draft("RGB", (at_least, at_least))
        return image.convert("RGB")
    except BadSampleError:
        raise
    except Exception as error:  # PIL raises nearly any exception on damaged bytes
        raise BadSampleError("undecodable image") from error


def to_square(image: Image.Image, size: int, resize_mode: str) -> np.ndarray:
    """Resizes as the checkpoint's own preprocessing does: uint8 (size, size, 3), bicubic."""
    if resize_mode == "squash":
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    width, height = (size * side // min(image.size) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def decode(sample: Sample, scale: Scale, rng: np.random.Generator | None = None) -> np.ndarray:
    """The sample's image as uint8 (S, S, 3); for "crop" a random box of 90-100 % of the area, like open_clip.

    Raises:
        BadSampleError: there is no usable image.
    """
    image = open_image(sample.image, at_least=2 * scale.image_size)  # twice, so that the resizing stays smooth
    if scale.augment != "crop" or rng is None:
        return to_square(image, scale.image_size, scale.resize_mode)
    for _ in range(10):  # area in 0.9..1, aspect ratio in 3/4..4/3; now and then such a box sticks out of the image
        area = image.width * image.height * rng.uniform(0.9, 1.0)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        width, height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < width <= image.width and 0 < height <= image.height:
            left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
            box = (left, top, left + width, top + height)
            square = (scale.image_size, scale.image_size)
            return np.asarray(image.resize(square, Image.Resampling.BICUBIC, box=box))
    return to_square(image, scale.image_size, "shortest")


def augment(images: np.ndarray, scale: Scale, rng: np.random.Generator) -> np.ndarray:
    """Shifts and flips each of the uint8 (B, S, S, 3) images at random, as far as the scale says so.

    What a shift uncovers repeats the border's pixels mirrored. Cropping is `decode`'s.
    """
    count, size = images.shape[:2]
    if scale.augment == "shift":
        reach = max(1, size // 8)
        padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")
        for i, (y, x) in enumerate(rng.integers(0, 2 * reach + 1, (count, 2))):
            images[i] = padded[i, y : y + size, x : x + size]
    if scale.flip:
        mirrored = rng.random(count) < 0.5
        images[mirrored] = images[mirrored, :, ::-1]
    return images
