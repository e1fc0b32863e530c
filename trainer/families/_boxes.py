"""Boxes as words: a grid over the image, whose cells are named after the phrase that they belong to.

A box is said by the cells of its top left and its bottom right corner and read back as their centres, as in KOSMOS-2
(Peng et al. 2023, arXiv:2306.14824): at most half a cell off.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import torch

from trainer.families._words import without_locations
from trainer.shards import BadSampleError, Sample

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 as shares of the image's sides, from the top left


def box_words(box: Box, grid: int) -> str:
    """The two location words of a box on a grid of `grid` by `grid` cells."""
    x0, y0, x1, y1 = (min(int(value * grid), grid - 1) for value in box)
    return f"<loc{y0 * grid + x0}><loc{y1 * grid + x1}>"


def boxes_of(cells: torch.Tensor, grid: int) -> torch.Tensor:
    """int64 (N, 2) cells of corners to float32 (N, 4) boxes."""
    first, second = cells.unbind(1)
    corners = torch.stack([first % grid, first // grid, second % grid, second // grid], dim=1)
    return (corners.float() + 0.5) / grid


def grounded_text(sample: Sample, grid: int) -> str:
    """The caption with the place of each of the sample's boxes after its phrase; a phrase that the caption does not
    hold comes after it. A sample without boxes keeps its plain caption.

    Raises:
        BadSampleError: it has neither a caption nor a box.
    """
    boxes = read_boxes(sample)
    try:
        text = without_locations(sample.caption)
    except BadSampleError:
        if not boxes:
            raise
        text = ""
    for phrase, box in boxes:
        found = re.search(rf"\b{re.escape(phrase)}\b", text, re.IGNORECASE)
        if not found:
            text = f"{text} {phrase}".strip()
        end = found.end() if found else len(text)
        text = text[:end] + box_words(box, grid) + text[end:]
    return text


def read_boxes(sample: Sample) -> list[tuple[str, Box]]:
    """The `boxes` of the sample's JSON, `[{"phrase": "a red star", "box": [x0, y0, x1, y1]}]`, without those that are
    malformed or empty.
    """
    try:
        found: Any = json.loads(sample.members.get("json", b"{}"))["boxes"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    read = [_phrase_and_box(entry) for entry in found] if isinstance(found, list) else []
    return [pair for pair in read if pair]


def _phrase_and_box(entry: Any) -> tuple[str, Box] | None:
    try:
        phrase = without_locations(str(entry["phrase"])).strip()
        x0, y0, x1, y1 = (min(max(float(value), 0.0), 1.0) for value in entry["box"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    whole = all(math.isfinite(value) for value in (x0, y0, x1, y1))
    return (phrase, (x0, y0, x1, y1)) if phrase and whole and x0 < x1 and y0 < y1 else None
