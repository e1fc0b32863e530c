"""Retrieval: whose caption is this, and whose image.

Items hold an image and its captions, one a line of the `txt`, as CLIP_benchmark's retrieval sets do. R@k is the share
of queries that find a right answer among the first k: an image finds any of its captions, a caption finds its image.

M. Hodosh, P. Young, J. Hockenmaier, "Framing Image Description as a Ranking Task", JAIR 2013; both directions over
all items as in A. Karpathy, L. Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions", 2015.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from trainer.family import VisionLanguageModel
from trainer.tasks._items import Item, prepared
from trainer.tasks.contract import TaskResult, batched, result

KIND = "retrieval"
CUTS = (1, 5, 10)
MOST_PAIRS = 200_000  # image-caption pairs that a family without embeddings is asked about, a pass each
BLOCK = 1024  # images or texts that are compared with all of the others at a time


def run(folder: str, model: VisionLanguageModel, batch_size: int) -> TaskResult:
    """R@1, R@5 and R@10 in both directions; the main metric is the mean R@1 of both.

    An item's score is the mean of whether its image found a caption of its own at once, and of the share of its
    captions that found the image at once.
    """
    skipped: Counter[str] = Counter()

    def prepare(item: Item) -> tuple[torch.Tensor, list[str]]:
        return model.preprocess(item.image()), item.captions()

    keys, captions, parts = list[str](), list[list[str]](), list[torch.Tensor]()
    for batch in batched(prepared(folder, prepare, skipped), batch_size):
        images = torch.stack([image for _, (image, _) in batch])
        parts.append(model.embed_images(images.to(model.device)) if model.embeds else images)
        keys += [key for key, _ in batch]
        captions += [texts for _, (_, texts) in batch]
    if not keys:
        return result(folder, KIND, "r@1", [], [], skipped)
    texts = [text for own in captions for text in own]
    owner = np.repeat(np.arange(len(keys)), [len(own) for own in captions])
    if model.embeds:
        embedded = torch.cat([model.embed_texts(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)])
        of_images, of_texts = ranks(torch.cat(parts), embedded, owner)
    else:
        if len(keys) * len(texts) > MOST_PAIRS:
            raise ValueError(f"task: {folder} has {len(keys)} images and {len(texts)} captions, {MOST_PAIRS} pairs are "
                             f"the most for the family {model.family}, which has no embeddings")  # fmt: skip
        scores = torch.cat([model.match(images.to(model.device), texts) for images in parts])
        of_images, of_texts = ranks_of_scores(scores, owner)
    first_texts = np.bincount(owner, of_texts < 1) / np.bincount(owner)
    more = {f"image_to_text_r@{k}": float((of_images < k).mean()) for k in CUTS}
    more |= {f"text_to_image_r@{k}": float((of_texts < k).mean()) for k in CUTS}
    return result(folder, KIND, "r@1", keys, ((of_images < 1) + first_texts) / 2, skipped, more)


def ranks(images: torch.Tensor, texts: torch.Tensor, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`ranks_of_scores` of unit vectors (N, D) and (M, D), by their cosines, of which a block is held at a time."""
    of_images = [
        _ahead_of_best(images[start : start + BLOCK] @ texts.T, owner - start) for start in range(0, len(images), BLOCK)
    ]
    of_texts = [
        _ahead_of_own(images @ texts[start : start + BLOCK].T, owner[start : start + BLOCK])
        for start in range(0, len(texts), BLOCK)
    ]
    return np.concatenate(of_images), np.concatenate(of_texts)


def ranks_of_scores(scores: torch.Tensor, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many wrong answers come before the first right one: for each image (N,), for each text (M,).

    A wrong answer with the same score as the right one counts as before it.

    Args:
        scores: float (N, M), of each text for each image.
        owner: int (M,), the image of each text.
    """
    return _ahead_of_best(scores, owner), _ahead_of_own(scores, owner)


def _ahead_of_best(scores: torch.Tensor, owner: np.ndarray) -> np.ndarray:
    """For each row, how many foreign texts score at least as high as the best of its own."""
    own = _is_own(scores, owner)
    best = scores.masked_fill(~own | scores.isnan(), -torch.inf).amax(dim=1, keepdim=True)
    return ((scores >= best) & ~own).sum(dim=1).cpu().numpy()


def _ahead_of_own(scores: torch.Tensor, owner: np.ndarray) -> np.ndarray:
    """For each column, how many foreign images score at least as high as its own."""
    own = _is_own(scores, owner)
    right = scores.masked_fill(~own, 0).sum(dim=0).nan_to_num(nan=-torch.inf)  # no score finds nothing
    return ((scores >= right) & ~own).sum(dim=0).cpu().numpy()


def _is_own(scores: torch.Tensor, owner: np.ndarray) -> torch.Tensor:
    """bool, the shape of `scores`: whether the column's text belongs to the row's image."""
    rows = torch.arange(len(scores), device=scores.device)
    return rows[:, None] == torch.from_numpy(owner).to(scores.device)
