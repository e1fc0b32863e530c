"""Bias: does the model do as well for every group as for the others?

A zero-shot classification whose items also name their `group`, in the `json`, in `KEY.group.txt` or as a field. A gap
between the best and the worst group is found even where there is none, because some group has the luckier items;
`gap_p` says how often at least such a gap comes by chance alone.

The accuracy of the worst group: S. Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", ICLR
2020. Resampling items within their groups: B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter
8.
"""

from __future__ import annotations

import numpy as np

from trainer.family import VisionLanguageModel
from trainer.tasks._items import Item
from trainer.tasks.contract import TaskResult, result
from trainer.tasks.zero_shot_classification import classify

KIND = "bias"
RESAMPLES = 2000
NO_SHARES = ("gap_p",)


def run(folder: str, model: VisionLanguageModel, batch_size: int) -> TaskResult:
    """The accuracy over all items; beside it that of the worst and of every group, and the gap from best to worst.

    `gap_low` and `gap_high` are the gap's 95 % interval.
    """
    found = classify(folder, model, batch_size, about=_group)
    correct = np.array(found.labels) == np.array(found.predictions)
    more = gaps(correct, np.array(found.about)) if found.keys else {}
    return result(folder, KIND, "accuracy", found.keys, correct, found.skipped, more, numbers=NO_SHARES)


def gaps(correct: np.ndarray, groups: np.ndarray, seed: int = 0) -> dict[str, float]:
    """The metrics of 0/1 outcomes (items,) and their groups' names (items,)."""
    rng = np.random.default_rng(seed)
    names, member = np.unique(groups, return_inverse=True)
    count = np.bincount(member)
    right = np.bincount(member, weights=correct)
    accuracy = right / count
    gap = float(np.ptp(accuracy))
    # An item is right or wrong: drawing a group's items anew is drawing how many of them are right.
    resampled = np.ptp(rng.binomial(count, accuracy, (RESAMPLES, len(names))) / count, axis=1)
    shuffled = rng.multivariate_hypergeometric(count, int(right.sum()), RESAMPLES) / count
    by_chance = np.ptp(shuffled, axis=1) >= gap - 1e-12
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {
        "worst_group": float(accuracy.min()),
        "gap": gap,
        "gap_low": float(low),
        "gap_high": float(high),
        "gap_p": float((1 + by_chance.sum()) / (1 + RESAMPLES)),
        **{f"group {name}": float(value) for name, value in zip(names, accuracy, strict=True)},
    }


def _group(item: Item) -> str:
    return item.text("group")
