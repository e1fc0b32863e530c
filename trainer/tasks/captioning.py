"""Captioning: does what the model writes of an image say what people wrote of it?

Items hold an image and people's captions, one a line of the `txt`. Words are the lower-case tokens of the Penn Treebank
without punctuation, as in COCO's evaluation, for all three metrics:

- CIDEr-D (Vedantam et al. 2015, `_cider.py`), 0 to 10: papers print it times 100;
- BLEU-4 and BLEU-1 of all captions together (Papineni et al. 2002), by sacrebleu;
- ROUGE-L (Lin 2004), the F1 of the longest common subsequence with the best reference, by rouge-score.

With a `scorer`, CLIPScore and RefCLIPScore beside them (`_clip_score.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from trainer.checkpoint import load_checkpoint
from trainer.family import VisionLanguageModel
from trainer.tasks._cider import cider_d
from trainer.tasks._clip_score import clip_scores
from trainer.tasks._items import Item, prepared
from trainer.tasks.contract import TaskResult, batched, read_settings, result

KIND = "captioning"
MAX_TOKENS = 32
# COCO's evaluation leaves these out, as the Penn Treebank writes them.
PUNCTUATION = frozenset(["''", "'", "``", "`", "(", ")", "{", "}", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
ESCAPED = {"[": "-lsb-", "]": "-rsb-"}


def run(folder: str, model: VisionLanguageModel, batch_size: int) -> TaskResult:
    """CIDEr-D, which is the mean of the items' own, and BLEU and ROUGE-L beside it.

    `task.json` may hold `prompt`, "" unless given, `metric`: "cider" or "rouge_l", which of them is the main one, and
    `scorer`: a checkpoint of another model, whose CLIPScore is told beside them.
    """
    settings = read_settings(folder)
    metric = settings.get("metric", "cider")
    if metric not in ("cider", "rouge_l"):
        raise ValueError(f"task: {folder}/task.json: metric {metric!r} is neither cider nor rouge_l")
    scorer = load_checkpoint(str(settings["scorer"]), model.device) if settings.get("scorer") else None
    skipped: Counter[str] = Counter()

    def prepare(item: Item) -> tuple[torch.Tensor, torch.Tensor | None, list[str]]:
        image = item.image()
        return model.preprocess(image), scorer.preprocess(image) if scorer else None, item.captions()

    keys, candidates, references, fits = list[str](), list[str](), list[list[str]](), list[tuple[float, float]]()
    for batch in batched(prepared(folder, prepare, skipped), batch_size):
        images = torch.stack([image for _, (image, _, _) in batch]).to(model.device)
        said = model.generate(images, [str(settings.get("prompt", ""))] * len(batch), MAX_TOKENS)
        true = [captions for _, (_, _, captions) in batch]
        if scorer is not None:
            seen = torch.stack([image for _, (_, image, _) in batch if image is not None]).to(scorer.device)
            fits += zip(*clip_scores(scorer, seen, said, true), strict=True)
        candidates, references, keys = candidates + said, references + true, keys + [key for key, _ in batch]
    if not keys:
        return result(folder, KIND, metric, [], [], skipped)
    corpus, per_item = caption_scores(candidates, references)
    if fits:
        means = (sum(scores) / len(fits) for scores in zip(*fits, strict=True))
        corpus |= dict(zip(("clip_score", "ref_clip_score"), means, strict=True))
    numbers = [name for name in ("cider", "clip_score", "ref_clip_score") if name in corpus]
    return result(folder, KIND, metric, keys, per_item[metric], skipped, corpus, numbers=numbers)


def caption_scores(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The metrics of all captions together, and of those that have it, each item's.

    Args:
        candidates: one caption per item.
        references: one or more captions of people per item.
    """
    sacrebleu, rouge_scorer = _libraries()
    said = [words(candidate) for candidate in candidates]
    true = [[words(reference) for reference in item] for item in references]
    most = max(map(len, true))
    streams = [[" ".join(item[n]) if n < len(item) else None for item in true] for n in range(most)]
    bleu = sacrebleu.BLEU(tokenize="none", smooth_method="none").corpus_score([" ".join(one) for one in said], streams)
    rouge = rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Split())
    best = [
        max(rouge.score(" ".join(reference), " ".join(one))["rougeL"].fmeasure for reference in item)
        for one, item in zip(said, true, strict=True)
    ]
    per_item = {"cider": cider_d(said, true), "rouge_l": best}
    corpus = {name: sum(scores) / len(scores) for name, scores in per_item.items()}
    return corpus | {"bleu_4": bleu.score / 100, "bleu_1": bleu.bp * bleu.precisions[0] / 100}, per_item


def words(caption: str) -> list[str]:
    """The caption's tokens in lower case, without punctuation."""
    from nltk.tokenize import TreebankWordTokenizer

    tokens = TreebankWordTokenizer().tokenize(" ".join(caption.split()).replace("’", "'").lower())
    split = (part for token in tokens for part in ([token[:-1], "."] if _ends_a_sentence(token) else [token]))
    return [ESCAPED.get(token, token) for token in split if token not in PUNCTUATION]


def _ends_a_sentence(token: str) -> bool:
    """The tokenizer takes a full stop off only the last word of a text, and captions may be several sentences."""
    return len(token) > 2 and token.endswith(".") and "." not in token[:-1]


class _Split:
    """rouge-score's tokenizer for text whose tokens are known."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


def _libraries() -> tuple[Any, Any]:
    try:
        import nltk  # noqa: F401
        import sacrebleu
        from rouge_score import rouge_scorer
    except ImportError as missing:
        raise ValueError(f"task: captioning needs {missing.name}: pip install 'curate[captioning]'") from missing
    return sacrebleu, rouge_scorer
