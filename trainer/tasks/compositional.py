"""Compositional understanding: two images and two captions of the same words; which belongs to which?

Items hold `image_0`, `image_1`, `caption_0`, `caption_1`, as Winoground's do; caption 0 is that of image 0.

T. Thrush et al., "Winoground: Probing Vision and Language Models for Visio-Linguistic Compositionality", CVPR 2022,
equations 1 to 3. By chance: text and image score 1/4, group score 1/6.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from trainer.family import VisionLanguageModel
from trainer.tasks._items import Item, prepared
from trainer.tasks.contract import TaskResult, batched, result

KIND = "compositional"


def run(folder: str, model: VisionLanguageModel, batch_size: int) -> TaskResult:
    """The group score, with the text score (each image finds its caption) and the image score (and vice versa)."""
    skipped: Counter[str] = Counter()

    def prepare(item: Item) -> tuple[torch.Tensor, tuple[str, str]]:
        images = torch.stack([model.preprocess(item.image(f"image_{n}")) for n in (0, 1)])
        return images, (item.text("caption_0"), item.text("caption_1"))

    keys, parts = list[str](), list[np.ndarray]()
    for batch in batched(prepared(folder, prepare, skipped), max(1, batch_size // 4)):
        images = torch.cat([pair for _, (pair, _) in batch]).to(model.device).repeat_interleave(2, dim=0)
        texts = [text for _, (_, pair) in batch for text in pair * 2]
        parts.append(model.match_pairs(images, texts).view(-1, 2, 2).double().cpu().numpy())
        keys += [key for key, _ in batch]
    if not keys:
        return result(folder, KIND, "group_score", [], [], skipped)
    text, image = winoground(np.concatenate(parts))
    more = {"text_score": float(text.mean()), "image_score": float(image.mean())}
    return result(folder, KIND, "group_score", keys, text & image, skipped, more)


def winoground(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each item's captions, and its images, were told apart: two of bool (items,). Ties are wrong.

    Args:
        scores: (items, 2, 2), how well caption c fits image i at [:, i, c].
    """
    right = scores[:, [0, 1], [0, 1]]  # (items, 2)
    other_text = scores[:, [0, 1], [1, 0]]  # the same image's
    other_image = scores[:, [1, 0], [0, 1]]  # the same caption's
    return np.all(right > other_text, axis=1), np.all(right > other_image, axis=1)
