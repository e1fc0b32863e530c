"""CLIPScore: how well a caption fits its image, and RefCLIPScore: and what people wrote of it, by a CLIP.

J. Hessel et al., "CLIPScore: A Reference-free Evaluation Metric for Image Captioning", EMNLP 2021, section 3:

    CLIP-S(c, v) = 2.5 max(cos(c, v), 0)
    RefCLIP-S(c, R, v) = harmonic mean of CLIP-S(c, v) and max(max over r in R of cos(c, r), 0)

Captions are read after "A photo depicts ", as there. Scores of different models cannot be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainer.family import VisionLanguageModel

WEIGHT = 2.5
PROMPT = "A photo depicts "


def clip_scores(
    scorer: VisionLanguageModel, images: torch.Tensor, candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[float], list[float]]:
    """CLIPScore and RefCLIPScore of each caption, 0 to 2.5 and 0 to 1.43.

    Args:
        images: float32 (N, 3, S, S) on the scorer's device, as its `preprocess` makes them.
        candidates: N captions.
        references: one or more captions of people for each image.

    Raises:
        ValueError: the scorer embeds nothing.
    """
    if not scorer.embeds:
        raise ValueError(f"scorer: family {scorer.family} has no embeddings; give one such as clip")
    said = scorer.embed_texts([PROMPT + caption for caption in candidates])
    fits = WEIGHT * (scorer.embed_images(images) * said).sum(dim=1).clamp(min=0)
    true = scorer.embed_texts([PROMPT + caption for item in references for caption in item])
    counts = [len(item) for item in references]
    owner = torch.repeat_interleave(torch.tensor(counts, device=said.device))
    alike = torch.zeros_like(fits).scatter_reduce(0, owner, (said[owner] * true).sum(dim=1), "amax")  # from 0 on
    both = 2 * fits * alike / (fits + alike).clamp(min=1e-12)
    return fits.tolist(), both.tolist()
