"""A LLaVA of a few hundred thousand weights, trained in seconds to name the colour of a picture, and its server.

The server is `transformers serve`: Hugging Face's own, of OpenAI's chat completions, in a process of its own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curate.recaption.backends.endpoint import DATA, SYSTEM

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 40, 200), "yellow": (220, 210, 40)}
PROMPT = "Describe the image in one sentence."
_STEPS, _BATCH = 60, 8
_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}{% endfor %}"
    "{% endif %}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def picture(colour: str, seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A picture of one colour, with noise."""
    noise = np.random.default_rng(seed).normal(COLOURS[colour], 12, (size[1], size[0], 3))
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8))


def caption(colour: str) -> str:
    return f"a {colour} picture."


def train_vlm(folder: Path) -> Path:
    """Train the model and save it with its processor, as any of the hub's lies there."""
    import torch

    tokenizer, processor = _processor()
    model = _model(len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    rng = np.random.default_rng(0)
    model.train()
    for step in range(_STEPS):
        names = [list(COLOURS)[place] for place in rng.integers(0, len(COLOURS), _BATCH)]
        texts = [
            f"system: {SYSTEM} {DATA}\nuser: <image>{PROMPT}\nassistant: {caption(name)}</s>" for name in names
        ]  # as the template writes it
        pictures = [picture(name, _BATCH * step + place) for place, name in enumerate(names)]
        batch = processor(images=pictures, text=texts, return_tensors="pt", padding=True)
        labels = torch.full_like(batch["input_ids"], -100)
        for row, name in enumerate(names):  # only the caption is learned
            length = len(tokenizer(f" {caption(name)}</s>")["input_ids"])
            end = int(batch["attention_mask"][row].sum())
            labels[row, end - length : end] = batch["input_ids"][row, end - length : end]
        optimizer.zero_grad()
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _processor() -> tuple[Any, Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token=None))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    texts = [SYSTEM, DATA, PROMPT, *map(caption, COLOURS), "system: user: assistant:"] * 2
    special = ["<pad>", "</s>", "<image>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", padding_side="right",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return tokenizer, LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=8, vision_feature_select_strategy="default",
        image_token="<image>", num_additional_image_tokens=1, chat_template=_TEMPLATE,
    )  # fmt: skip


def _model(vocabulary: int) -> Any:
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=2, vision_feature_layer=-1)
    model = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 1
    return model


@contextmanager
def serve(model: Path, patience: float = 300.0) -> Iterator[str]:
    """Run the server on a free port and yield its address, once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model), "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (model / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log
        )
        try:
            until = time.monotonic() + patience
            while not _healthy(port):
                assert server.poll() is None and time.monotonic() < until, (model / "server.log").read_text()[-2000:]
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.kill()
            server.wait()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
