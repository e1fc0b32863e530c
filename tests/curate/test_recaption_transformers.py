"""The backend `transformers`, on a model that is asked in messages and on one that goes on after a prompt."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curate.errors import RequestError
from curate.recaption.backends.transformers import Transformers, _load
from curate.recaption.contract import Answer, Request
from tests.curate.tiny_vlm import COLOURS, PROMPT, picture, train_vlm


def encoded(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def asked(count: int, prompt: str = PROMPT, seed: int = 0) -> list[Request]:
    """Requests about pictures of the four colours in turn."""
    names = list(COLOURS)
    return [
        Request(f"u{n}", 0, prompt, seed, "", encoded(picture(names[n % 4], 500 + n, (60 + n, 72))))
        for n in range(count)
    ]


def said(backend: Transformers, requests: list[Request]) -> dict[str, str | None]:
    return {answer.uid: answer.caption for answer in backend.write(requests)}


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train_vlm(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP of random weights, which has no chat template."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
        BlipTextConfig,
        BlipVisionConfig,
    )

    folder = tmp_path_factory.mktemp("blip")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", "a", "photo", "of", *(f"w{n}" for n in range(40))]
    tokenizer = BertTokenizer(vocab={word: n for n, word in enumerate(words)}, additional_special_tokens=["[DEC]"])
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = BlipTextConfig(
        vocab_size=len(words), encoder_hidden_size=16, max_position_embeddings=40, pad_token_id=0, sep_token_id=3,
        bos_token_id=4, eos_token_id=3, **size,
    )  # fmt: skip
    vision = BlipVisionConfig(image_size=32, patch_size=8, **size)
    torch.manual_seed(1)
    model = BlipForConditionalGeneration(BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5)
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


def test_a_message_about_an_image_is_answered(llava: Path) -> None:
    backend = Transformers(model=str(llava), batch_size=4, max_tokens=12)
    answers = {answer.uid: answer for answer in backend.write(asked(10))}
    for number in range(10):
        assert answers[f"u{number}"].caption == f"a {list(COLOURS)[number % 4]} picture."
    assert answers["u0"].tokens_in > 20  # the patches of the image are among them
    assert 3 <= answers["u0"].tokens_out <= 12


def test_it_writes_what_the_model_generates(llava: Path) -> None:
    vlm = _load(backend := Transformers(model=str(llava), batch_size=3, max_tokens=12))
    images = [picture(name, 900) for name in ("red", "blue", "green")]
    requests = [Request(str(n), 0, PROMPT, 0, "", encoded(image)) for n, image in enumerate(images)]
    inputs = vlm.inputs(3, requests, images)
    theirs = vlm.model.generate(**inputs, do_sample=False, max_new_tokens=12)[:, inputs["input_ids"].shape[1] :]
    texts = vlm.processor.batch_decode(theirs, skip_special_tokens=True)
    assert list(said(backend, requests).values()) == [text.strip() for text in texts]


def test_a_model_without_messages_goes_on_after_the_prompt(blip: Path) -> None:
    backend = Transformers(model=str(blip), batch_size=4, max_tokens=8)
    captions = said(backend, asked(5, prompt="a photo of"))
    assert all(str(caption).startswith("a photo of ") for caption in captions.values())
    assert all(said(backend, asked(2, prompt="")).values())


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_a_caption_is_the_same_whatever_batch_it_is_in(blip: Path, temperature: float) -> None:
    backend = Transformers(model=str(blip), batch_size=4, max_tokens=8, temperature=temperature, top_p=0.95)
    mixed = [*asked(6, "a photo of"), *[Request(f"v{r.uid}", 0, "", 0, "", r.image) for r in asked(5)]]
    whole = said(backend, mixed)
    assert said(backend, mixed[::-1]) == whole
    assert said(backend, mixed[4:7]) == {r.uid: whole[r.uid] for r in mixed[4:7]}
    assert (len(set(whole.values())) > 6) or not temperature


def test_seeds_draw_other_captions(blip: Path) -> None:
    backend = Transformers(model=str(blip), batch_size=4, max_tokens=8, temperature=1.2)
    one, other = said(backend, asked(6, "")), said(backend, asked(6, "", seed=1))
    assert sum(one[uid] != other[uid] for uid in one) >= 4


def test_images_that_cannot_be_read_are_answers(llava: Path) -> None:
    backend = Transformers(model=str(llava), batch_size=2, max_tokens=4)
    answers = {a.uid: a for a in backend.write([Request("x", 0, PROMPT, 0, "", b"no"), Request("y", 0, PROMPT, 0, "")])}
    assert "image cannot be" in str(answers["x"].error)
    assert answers["y"] == Answer("y", 0, None, "no image")


def test_facts_name_the_weights_and_not_the_folder(llava: Path) -> None:
    backend = Transformers(model=str(llava))
    facts = backend.facts()
    assert str(llava) not in json.dumps(facts)
    assert backend.model_name == f"transformers-{facts['weights'][:12]}"
    assert Transformers(model=str(llava), device="cpu", batch_size=2).facts() == facts
    assert Transformers(model=str(llava), temperature=0.5).facts() != facts


def test_a_wrong_model_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for model in (str(tmp_path), "nobody/no-such-model"):
        with pytest.raises(RequestError, match=r"^backend\.transformers\.model: .* cannot be used: ") as wrong:
            list(Transformers(model=model).write(asked(1)))
        assert "\n" not in str(wrong.value)


def test_pickled_weights_are_refused(llava: Path, tmp_path: Path) -> None:
    for file in llava.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({"weight": torch.from_numpy(np.zeros(3))}, tmp_path / "pytorch_model.bin")
    with pytest.raises(RequestError, match="cannot be used"):
        list(Transformers(model=str(tmp_path)).write(asked(1)))
