"""Text that stands in the picture, found and read by PP-OCRv4 (Du et al. 2020, arXiv:2009.09941) through RapidOCR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import Field

from curate.extras import package_digest
from curate.features.batch import Batch
from curate.features.contract import Feature

MOST_READ = 12_000
"""Pixels of text, scaled to the recogniser's 48 lines, that are read of an image, the largest pieces first: about
a second's work, so that a page of small print costs little more than a poster."""
MOST_CHARACTERS = 1000
PIECE = 4
"""Characters that must stand together in the image for a part of the caption to count as read there."""


class TextInImage(Feature):
    """`text_area`: share of the image that text covers, 0 to 1. `text_boxes`: pieces of text, from 0 up.
    `image_text`: what they say, from top to bottom, at most 1000 characters; empty where there is none.
    `caption_in_image`: share of the caption's letters and digits that can be read in the image, 0 to 1.

    The image is scaled down to a longer side of `side` pixels, if it is larger. A piece counts if it was read
    with `min_confidence`; of a page of small print only the largest pieces are read, and all count. It takes about
    50 ms an image on one core; `side: 320` takes half and misses small print.
    """

    name: ClassVar = "text_in_image"
    version: ClassVar = 1
    needs: ClassVar = ("image", "text")
    side: int = Field(640, ge=64, le=1920)
    min_confidence: float = Field(0.5, ge=0, le=1)

    def arrow_schema(self) -> pa.Schema:
        return pa.schema({"text_area": pa.float32(), "text_boxes": pa.int16(), "image_text": pa.string(),
                          "caption_in_image": pa.float32()})  # fmt: skip

    def weights_digest(self) -> str:
        files = ("config.yaml", "models/*.onnx")
        return package_digest("rapidocr_onnxruntime", files, self.name, "install curate with its extra [ocr]")

    def measure(self, batch: Batch) -> dict[str, pa.Array]:
        images = batch.images(self.side, "RGB")
        found = [None if image is None else read(image, self.side, self.min_confidence) for image in images]
        overlaps = [
            None if page is None or caption is None else share_read(caption, page.text)
            for page, caption in zip(found, batch.texts, strict=True)
        ]
        return {
            "text_area": pa.array([page and page.area for page in found], pa.float32()),
            "text_boxes": pa.array([page and len(page.boxes) for page in found], pa.int16()),
            "image_text": pa.array([page and page.text for page in found], pa.string()),
            "caption_in_image": pa.array(overlaps, pa.float32()),
        }


@dataclass(frozen=True)
class Page:
    """What was read in an image. `boxes`: float (pieces, 4, 2), corners as shares of width and height."""

    text: str
    boxes: np.ndarray
    area: float


def read(image: Image.Image, side: int, min_confidence: float) -> Page:
    """Find and read the text of an RGB image, of any size."""
    import cv2

    shrink = min(1.0, side / max(image.size))
    size = tuple(max(1, round(length * shrink)) for length in image.size)
    small = image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)  # type: ignore[arg-type]
    pixels = np.ascontiguousarray(np.asarray(small)[..., ::-1])  # the models were trained on BGR
    engine = _engine()
    boxes, _ = engine.text_det(pixels)
    if boxes is None or len(boxes) == 0:
        return Page("", np.zeros((0, 4, 2)), 0.0)
    ordered = engine.sorted_boxes(boxes)
    chosen = _worth_reading(ordered)
    said, _ = engine.text_rec(engine.get_crop_img_list(pixels, [ordered[n] for n in chosen]))
    words = {n: line[0].strip() for n, line in zip(chosen, said, strict=True) if line[1] >= min_confidence}
    text = " ".join(line for line in words.values() if line)[:MOST_CHARACTERS]
    unread = set(range(len(ordered))) - set(chosen)
    sure = [n for n in range(len(ordered)) if n in unread or words.get(n)]
    corners = np.array([ordered[n] for n in sure], np.float32).reshape(-1, 4, 2)
    covered = np.zeros(pixels.shape[:2], np.uint8)
    for box in corners.round().astype(np.int32):  # one call for all would leave holes where two overlap
        cv2.fillConvexPoly(covered, box, 1)
    return Page(text, corners / np.array([size]), float(covered.mean()))


def _worth_reading(boxes: Sequence[np.ndarray]) -> list[int]:
    """Which of some boxes, float (4, 2) each, to read: the largest, up to the bound on the work."""
    corners = np.stack(boxes)
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=2)  # top, right, bottom, left
    width, height = np.maximum(sides[:, 0], sides[:, 2]), np.maximum(sides[:, 1], sides[:, 3])
    largest = np.argsort(-width * height, kind="stable")
    longer, shorter = np.maximum(width, height), np.maximum(np.minimum(width, height), 1)
    work = np.cumsum((48 * longer / shorter)[largest])
    return sorted(largest[: max(1, int((work <= MOST_READ).sum()))].tolist())


def share_read(caption: str, text: str) -> float:
    """The share of a caption's letters and digits that stand in a text, at least four of them in a row.

    Case, spaces and punctuation do not count, for a recogniser often loses them, and a misread letter costs
    only its neighbours.

    >>> share_read("Summer SALE!", "summersale 50% off")
    1.0
    >>> share_read("a summer day", "SUMMER SALE")
    0.6
    """
    wanted, there = _letters(caption), _letters(text)
    if not wanted:
        return 0.0
    if len(wanted) < PIECE:
        return float(wanted in text.casefold().split())
    pieces = {there[n : n + PIECE] for n in range(len(there) - PIECE + 1)}
    hits = np.array([wanted[n : n + PIECE] in pieces for n in range(len(wanted) - PIECE + 1)])
    return float((np.convolve(hits, np.ones(PIECE)) > 0).mean())


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


@cache
def _engine() -> Any:
    """The models, once per process, on one thread: there is a process per core already."""
    import cv2
    from rapidocr_onnxruntime import RapidOCR

    cv2.setNumThreads(1)
    return RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1, det_limit_type="max")
