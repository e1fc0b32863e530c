"""Captions on the CPU: the backends, from JPEG bytes to text, against their models on tensors that are ready.

CoCa is open_clip's coca_ViT-B-32 with random weights, which no end of a text is likely of, so every caption has all of
its tokens; BLIP is of half the usual width and depth. Each side runs in turn, the model with one thread; processor
seconds are compared, since what is measured is the work that is done beside the model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from curate.recaption.backends import coca, transformers
from curate.recaption.contract import Request
from curate.recaption.local.batches import ready
from tests.bench.figure import Figure
from tests.bench.photo_pool import photos

BATCH, BATCHES, TOKENS, ROUNDS = 4, 2, 12, 2


def run(work: Path) -> list[Figure]:
    import torch

    torch.set_num_threads(1)  # threads that wait for each other are busy, and count as work
    requests = [Request(str(n), 0, "", 0, "", image) for n, image in enumerate(photos()[: BATCH * BATCHES])]
    return [*_of_coca(work, requests), _of_transformers(work, requests)]


def _of_coca(work: Path, requests: list[Request]) -> list[Figure]:
    import open_clip
    import torch
    from open_clip.coca_model import CoCa
    from safetensors.torch import save_file

    config = open_clip.get_model_config("coca_ViT-B-32")
    folder = work / "coca"
    folder.mkdir()
    preprocess = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    torch.manual_seed(0)
    network: Any = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    torch.nn.init.normal_(network.text_decoder.text_projection, std=0.02)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "model.safetensors")
    backend = coca.Coca(model=str(folder), batch_size=BATCH, max_tokens=TOKENS)
    loaded = coca._load(backend)
    inputs = [
        batch.inputs for batch in ready(requests, BATCH, loaded.side, loaded.prepare, 4, partial(loaded.collate, BATCH))
    ]

    def writer() -> None:
        for pixels in inputs:
            backend.tokens(loaded, pixels, [[]] * BATCH, [])

    def anew() -> None:
        """What open_clip's `generate` computes for each token, without its choice of the token."""
        model: CoCa = loaded.model.network
        with torch.inference_mode():
            for pixels in inputs:
                images = loaded.normalised(pixels)
                latent, seen = model._encode_image(images)
                tokens = torch.full((BATCH, 1), loaded.writer.start)
                for _ in range(TOKENS):
                    logits = model(images, tokens, image_latent=latent, image_embs=seen, output_labels=False)["logits"]
                    tokens = torch.cat([tokens, logits[:, -1].argmax(1, keepdim=True)], dim=1)

    whole, ours, theirs = _least(lambda: list(backend.write(requests)), writer, anew)
    count = len(requests)
    rates = [f"{count / seconds:.1f}/s" for seconds in (whole, ours, theirs)]
    detail = f"{rates[0]} against {rates[1]} of processor time, photos of 500 x 375, {TOKENS} tokens"
    against = f"{rates[1]} against {rates[2]} of processor time, both on ready tensors"
    return [
        Figure("captions by CoCa against its own writer on ready tensors", ours / whole, "x", 0.8, detail=detail),
        Figure("CoCa with caches against reading all anew for each token", theirs / ours, "x", detail=against),
    ]


def _of_transformers(work: Path, requests: list[Request]) -> Figure:
    backend = transformers.Transformers(model=str(_blip(work / "blip")), batch_size=BATCH, max_tokens=TOKENS)
    vlm = transformers._load(backend)
    inputs = [
        batch.inputs for batch in ready(requests, BATCH, vlm.side, lambda image: image, 4, partial(vlm.inputs, BATCH))
    ]

    def bare() -> None:
        for batch in inputs:
            vlm.model.generate(**batch, max_new_tokens=TOKENS, do_sample=False)

    whole, ready_made = _least(lambda: list(backend.write(requests)), bare)
    count = len(requests)
    detail = f"{count / whole:.1f}/s against {count / ready_made:.1f}/s of processor time, a BLIP of 6 + 6 layers"
    name = "captions by transformers against the model's generate on ready tensors"
    return Figure(name, ready_made / whole, "x", 0.8, detail=detail)


def _blip(folder: Path) -> Path:
    import torch
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", *(f"w{n}" for n in range(5000))]
    size = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6}
    text = {"vocab_size": len(words), "encoder_hidden_size": 384, "pad_token_id": 0, "sep_token_id": 3,
            "bos_token_id": 4, "eos_token_id": 3, **size}  # fmt: skip
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config={"image_size": 224, "patch_size": 16, **size})
    BlipForConditionalGeneration(config).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: n for n, word in enumerate(words)})
    BlipProcessor(BlipImageProcessor(size={"height": 224, "width": 224}), tokenizer).save_pretrained(folder)
    return folder


def _least(*works: Callable[[], object]) -> list[float]:
    """The least processor seconds of each work over some rounds, taken in turn."""
    least = [float("inf")] * len(works)
    for _ in range(ROUNDS):
        for place, work in enumerate(works):
            began = time.process_time()
            work()
            least[place] = min(least[place], time.process_time() - began)
    return least
