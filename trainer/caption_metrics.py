"""BLEU, ROUGE-L, CIDEr, CLIPScore and RefCLIPScore of written captions, against people's.

python -m trainer.caption_metrics CAPTIONS.parquet REFERENCES.parquet [CHECKPOINT]

Both tables have a `key`; the first `caption`, the second `captions` and, for the scores by CLIP, the image as `jpg`.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence

import pyarrow.parquet as pq
import torch
from PIL import Image

from trainer.checkpoint import load_checkpoint
from trainer.family import VisionLanguageModel
from trainer.tasks._clip_score import clip_scores
from trainer.tasks.captioning import caption_scores

_BATCH = 64


def caption_metrics(
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    images: Mapping[str, bytes] | None = None,
    scorer: VisionLanguageModel | None = None,
) -> dict[str, float]:
    """The metrics of all captions together: `cider`, 0 to 10, `rouge_l`, `bleu_1`, `bleu_4`, 0 to 1, as the task
    `captioning` has them; with images and a scorer also `clip_score` and `ref_clip_score`.

    Raises:
        ValueError: there is no caption, or one has no reference or no image.
    """
    keys = sorted(captions)
    if not keys or any(not references.get(key) for key in keys):
        raise ValueError("captions: none, or one has no reference")
    found, _ = caption_scores([captions[key] for key in keys], [references[key] for key in keys])
    if scorer is None or images is None:
        return found
    if lacking := [key for key in keys if key not in images]:
        raise ValueError(f"captions: no image for {lacking[0]!r}")
    fits = list[tuple[float, float]]()
    for start in range(0, len(keys), _BATCH):
        some = keys[start : start + _BATCH]
        seen = [scorer.preprocess(Image.open(io.BytesIO(images[key])).convert("RGB")) for key in some]
        with torch.inference_mode():
            said = clip_scores(
                scorer, torch.stack(seen).to(scorer.device), [captions[key] for key in some],
                [references[key] for key in some],
            )  # fmt: skip
        fits += zip(*said, strict=True)
    clip, ref = (sum(scores) / len(fits) for scores in zip(*fits, strict=True))
    return found | {"clip_score": clip, "ref_clip_score": ref}


def main(captions: str, references: str, checkpoint: str | None = None) -> None:
    """Print the metrics as JSON."""
    said = pq.read_table(captions, columns=["key", "caption"]).to_pylist()
    wanted = {row["key"]: row["caption"] for row in said if row["caption"]}
    true = pq.read_table(references, columns=["key", "captions", *(["jpg"] if checkpoint else [])]).to_pylist()
    images = {row["key"]: row["jpg"] for row in true} if checkpoint else None
    scorer = load_checkpoint(checkpoint) if checkpoint else None
    print(json.dumps(caption_metrics(wanted, {row["key"]: row["captions"] for row in true}, images, scorer), indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
