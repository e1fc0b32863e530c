"""Grounding: where in the image is what the phrase says?

Items hold an image, a `phrase`, and either `box`, its corners x0, y0, x1, y1 as shares of the sides, or COCO's `bbox`:
x, y, width and height in pixels. A box is right if its intersection with the true one is at least half of their union.

L. Yu et al., "Modeling Context in Referring Expressions" (RefCOCO), ECCV 2016; the measure is that of M. Everingham et
al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010.
"""

from __future__ import annotations

from collections import Counter

import torch
from torchvision.ops import box_iou

from trainer.family import VisionLanguageModel
from trainer.shards import BadSampleError
from trainer.tasks._items import Item, prepared
from trainer.tasks.contract import TaskResult, batched, result

KIND = "grounding"
Box = tuple[float, float, float, float]


def run(folder: str, model: VisionLanguageModel, batch_size: int) -> TaskResult:
    """The share of boxes with an intersection over union of 0.5 or more, its mean, and how many boxes were named."""
    skipped: Counter[str] = Counter()

    def prepare(item: Item) -> tuple[torch.Tensor, str, Box]:
        image = item.image()
        return model.preprocess(image), item.text("phrase"), true_box(item, image.size)

    keys, overlaps, named = list[str](), list[float](), list[bool]()
    for batch in batched(prepared(folder, prepare, skipped), batch_size):
        images = torch.stack([image for _, (image, _, _) in batch]).to(model.device)
        found = model.ground(images, [phrase for _, (_, phrase, _) in batch]).float().cpu()
        overlaps += intersection_over_union(found, torch.tensor([box for _, (_, _, box) in batch])).tolist()
        named += found.isfinite().all(dim=1).tolist()
        keys += [key for key, _ in batch]
    if not keys:
        return result(folder, KIND, "iou_0.5", [], [], skipped)
    scores = [float(overlap >= 0.5) for overlap in overlaps]
    more = {"mean_iou": sum(overlaps) / len(overlaps), "named": sum(named) / len(named)}
    return result(folder, KIND, "iou_0.5", keys, scores, skipped, more, numbers=["mean_iou"])


def intersection_over_union(found: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Of each found box (N, 4) with the true one (N, 4): (N,). A box that is none, or inside out, has 0."""
    usable = found.isfinite().all(dim=1) & (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
    boxes = torch.where(usable[:, None], found.nan_to_num(), 0.0).clamp(0, 1)
    return torch.where(usable, box_iou(boxes, true).diagonal(), 0.0)


def true_box(item: Item, size: tuple[int, int]) -> Box:
    """The item's box as shares of the sides, cut at the image's edges.

    Raises:
        BadSampleError: "no box": there is none, or it is empty or outside the image.
    """
    if "box" in item.fields:
        x0, y0, x1, y1 = item.numbers("box", 4)
    else:
        try:
            x, y, width, height = item.numbers("bbox", 4)
        except BadSampleError as bad:
            raise BadSampleError("no box") from bad
        x0, y0, x1, y1 = x / size[0], y / size[1], (x + width) / size[0], (y + height) / size[1]
    x0, y0, x1, y1 = (min(1.0, max(0.0, value)) for value in (x0, y0, x1, y1))
    if x1 <= x0 or y1 <= y0:
        raise BadSampleError("no box")
    return x0, y0, x1, y1
