"""The metrics of the evaluation tasks against the packages that define them, each installed into its own environment.

    python -m tests.experiments.task_references [DATA]

Prints the largest difference for each metric, and for the small example of the tests the reference's numbers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from tests.bench.peers import peer_python, run_peer
from trainer.tasks._answers import normalised
from trainer.tasks.captioning import caption_scores, words
from trainer.tasks.retrieval import CUTS, ranks_of_scores

EXAMPLE = [
    ("a red star on a striped background", ["a red star", "the star is red, on a striped wall"]),
    ("two blue fish above a house", ["two fish swim over a house.", "a house below two blue fish"]),
    ("a cat a cat a cat", ["a black cat in the garden, looking at us", "a cat"]),
    ("", ["a green tree in the middle"]),
]
ANSWERS = [
    "The red bus.", "two", "a  man's hat", "black-and-white", "1,000", "yes, it is!", "none", "3.5 m", "10 o'clock",
    "dont know", "N/A", "an apple, a pear", "left/right", "A (small) dog?", "U.S.A", "  ten  ", "the the", "\"stop\"",
]  # fmt: skip
COCO = """
import json, sys
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
said, true, raw = json.load(open(sys.argv[1]))
res, gts = ({n: v for n, v in enumerate(part)} for part in ([[one] for one in said], true))
bleu, _ = Bleu(4).compute_score(gts, res, verbose=0)
cider, each = Cider().compute_score(gts, res)
tokens = PTBTokenizer().tokenize({0: [{"caption": one} for one in raw]})[0]
print(json.dumps({"bleu_1": bleu[0], "bleu_4": bleu[3], "cider": cider, "each": list(each), "tokens": tokens}))
"""
RETRIEVAL = """
import json, sys, torch
from clip_benchmark.metrics.zeroshot_retrieval import recall_at_k
scores, owner = (torch.tensor(part) for part in json.load(open(sys.argv[1])))
scores, positive = scores.T, torch.zeros_like(scores.T, dtype=bool)
positive[torch.arange(len(scores)), owner] = True
share = lambda s, p, k: (recall_at_k(s, p, k) > 0).float().mean().item()
print(json.dumps({k: [share(scores.T, positive.T, k), share(scores, positive, k)] for k in (1, 5, 10)}))
"""
VQA = """
import importlib.util, json, pathlib, sys
root = pathlib.Path(importlib.util.find_spec("lmms_eval").origin).parent
spec = importlib.util.spec_from_file_location("vqa", root / "tasks/_task_utils/vqa_eval_metric.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
process = module.EvalAIAnswerProcessor()
answers = json.load(open(sys.argv[1]))
done = [process.process_digit_article(process.process_punctuation(" ".join(one.split()))) for one in answers]
print(json.dumps({"answers": done}))
"""


def main(data: Path) -> None:
    coco = peer_python("pycocoevalcap", ["pycocoevalcap==1.2"])
    photos = [row["captions"] for row in pq.read_table(data / "captioned.parquet", columns=["captions"]).to_pylist()]
    _captions("captioned photos", [(own[0], own[1:]) for own in photos], coco)
    _captions("example", EXAMPLE, coco, show=True)
    _retrieval(peer_python("clip-benchmark", ["clip-benchmark==1.6.2"]))
    _answers(peer_python("lmms-eval", ["lmms-eval==0.7.3", "--no-deps"]))  # of which one file is read


def _captions(name: str, items: list[tuple[str, list[str]]], python: Path, show: bool = False) -> None:
    """Both sides on the same tokens; the tokens themselves are compared apart."""
    corpus, each = caption_scores([said for said, _ in items], [true for _, true in items])
    raw = [caption for said, true in items for caption in (said, *true)]
    tokens = [" ".join(words(said)) for said, _ in items], [[" ".join(words(one)) for one in true] for _, true in items]
    theirs = _ask(python, COCO, [*tokens, raw])
    same = sum(a == " ".join(words(b)) for a, b in zip(theirs["tokens"], raw, strict=True))
    print(f"{name}: {same} of {len(raw)} captions have the same tokens")
    print(f"{name}: CIDEr-D differs by {np.abs(np.array(each['cider']) - theirs['each']).max():.1e}")
    for metric in ("bleu_1", "bleu_4"):
        print(f"{name}: {metric} {corpus[metric]:.6f}, theirs {theirs[metric]:.6f}")
    if show:
        print(json.dumps({key: theirs[key] for key in ("bleu_1", "bleu_4", "cider", "each")}))


def _retrieval(python: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    scores, owner = torch.rand(60, 150, generator=generator), torch.randint(60, (90,), generator=generator)
    owner = torch.cat([torch.arange(60), owner])
    scores[owner, torch.arange(150)] += 0.4
    of_images, of_texts = ranks_of_scores(scores, owner.numpy())
    ours = {str(k): [float((of_images < k).mean()), float((of_texts < k).mean())] for k in CUTS}
    print("retrieval: ours", ours, "theirs", _ask(python, RETRIEVAL, [scores.tolist(), owner.tolist()]))


def _answers(python: Path) -> None:
    theirs = [one.replace("'", "") for one in _ask(python, VQA, ANSWERS)["answers"]]
    for answer, their in zip(ANSWERS, theirs, strict=True):
        print(
            "same" if normalised(answer) == their else "DIFFERENT", repr(answer), repr(their), repr(normalised(answer))
        )


def _ask(python: Path, code: str, value: object) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(value, file)
        file.flush()
        return run_peer(python, code, file.name)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data"))
