"""Memorisation: do pairs of the training fit better than pairs like them that were held out?

`train/*.tar` holds pairs that the model was trained on, `test/*.tar` others of the same kind (or all in one place, each
with `trained` true or false): an image and its caption. The AUC is the chance that a trained pair fits better than a
held-out one: 1/2 where nothing was memorised. So here higher is not better.

Membership inference by the loss of a sample: S. Yeom et al., "Privacy Risk in Machine Learning: Analyzing the
Connection to Overfitting", CSF 2018. The interval: E. DeLong, D. DeLong, D. Clarke-Pearson, "Comparing the Areas under
Two or More Correlated Receiver Operating Characteristic Curves", Biometrics 1988.
"""

from __future__ import annotations

import math
from collections import Counter

import fsspec
import numpy as np
import torch
from scipy import stats

from trainer.family import VisionLanguageModel
from trainer.stats import wilson_interval
from trainer.tasks._items import Item, prepared
from trainer.tasks.contract import TaskResult, batched, result

KIND = "memorisation"


def run(folder: str, model: VisionLanguageModel, batch_size: int) -> TaskResult:
    """The AUC of how well trained pairs fit, against held-out pairs. The items are the trained pairs; the score of
    one is the share of held-out pairs that fit less well than it.
    """
    skipped: Counter[str] = Counter()
    found: dict[bool, tuple[list[str], list[float]]] = {True: ([], []), False: ([], [])}
    fs, path = fsspec.url_to_fs(folder.rstrip("/"))
    for part in ("train", "test") if fs.isdir(f"{path}/train") else ("test",):

        def prepare(item: Item, trained: bool = part == "train") -> tuple[torch.Tensor, str, bool]:
            return model.preprocess(item.image()), item.captions()[0], trained or item.fields.get("trained") is True

        for batch in batched(prepared(folder, prepare, skipped, part), batch_size):
            images = torch.stack([image for _, (image, _, _) in batch]).to(model.device)
            fits = model.match_pairs(images, [text for _, (_, text, _) in batch]).double()
            known = fits.masked_fill(fits.isnan(), -torch.inf).tolist()
            for (key, (_, _, trained)), fit in zip(batch, known, strict=True):
                found[trained][0].append(key)
                found[trained][1].append(fit)
    (keys, trained_fits), (_, held_out_fits) = found[True], found[False]
    if not trained_fits or not held_out_fits:
        raise ValueError(f"task: {folder} needs trained and held-out pairs, and has {len(trained_fits)} and "
                         f"{len(held_out_fits)} (skipped: {dict(skipped)})")  # fmt: skip
    above, interval = area(np.array(trained_fits), np.array(held_out_fits))
    more = {"held_out_pairs": len(held_out_fits)}
    return result(folder, KIND, "auc", keys, above, skipped, more, interval=interval, numbers=["auc", "held_out_pairs"])


def area(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """The area under the ROC curve as the mean of an array (positive,), and its 95 % interval by DeLong's variance.

    Each entry is the share of the negative that is below this positive; equal ones count half. Where all of them agree,
    the variance says nothing, and the interval is Wilson's for as many items as the smaller side has.
    """
    above = _share_below(positive, negative)
    below = 1 - _share_below(negative, positive)
    mean = float(above.mean())
    if mean in (0.0, 1.0):
        return above, wilson_interval(round(mean * min(len(above), len(below))), min(len(above), len(below)))
    variance = sum(part.var(ddof=1) / len(part) if len(part) > 1 else 0.25 for part in (above, below))
    half = math.sqrt(variance) * float(stats.norm.ppf(0.975))
    return above, (max(0.0, mean - half), min(1.0, mean + half))


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    ordered = np.sort(others)
    counts = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return counts / (2 * len(others))
