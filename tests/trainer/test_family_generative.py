"""What holds for every family that writes: `decoder`, and `backbone` with nothing given."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from trainer_samples import COLOURS, TEMPLATES, jpeg

from trainer.checkpoint import load_checkpoint, save_checkpoint
from trainer.families._generative import PAD, mean_log_likelihood, with_blanks
from trainer.family import get_family
from trainer.images import open_image
from trainer.model import normalise
from trainer.scales import Scale
from trainer.train import train

FAMILIES = ["decoder", "backbone"]
TEXTS = ["a photo of something red", "all of it is blue", "so"]


class Killed(Exception):
    """Stands for a process that ends in the midst of a training."""


def killed_at(step: int) -> Any:
    def progress(record: dict[str, Any]) -> None:
        if record["step"] >= step:
            raise Killed

    return progress


def untrained(family: str, scale: Scale, folder: Path) -> Any:
    found = get_family(family)
    scale = found.configure(scale)
    save_checkpoint(found.build(scale, 1, torch.device("cpu")), found, scale, folder)
    return load_checkpoint(folder, "cpu")


def some_images(model: Any) -> torch.Tensor:
    return torch.stack([model.preprocess(open_image(jpeg(rgb))) for rgb in COLOURS.values()])


def plain_logits(model: Any, images: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """(1, V): what follows the tokens, read all at once and without a cache."""
    tokens = torch.tensor([[*ids, 0]])  # the last one is not read
    with torch.inference_mode():
        return model.network.eval()(images, tokens)["logits"][:, -1]


def weights(out: Path) -> dict[str, bytes]:
    files = sorted((out / "checkpoint").rglob("*.safetensors"))
    assert files
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_match_is_the_mean_of_each_tokens_log_likelihood_less_that_of_a_blank_image(
    family: str, nano: Scale, tmp_path: Path
) -> None:
    model = untrained(family, nano, tmp_path / "model")

    def likelihood(image: torch.Tensor, text: str) -> float:
        ids = [model.words.start, *model.words.encode(text), model.words.end]
        total = 0.0
        for place in range(1, len(ids)):
            logits = plain_logits(model, image[None], ids[:place])
            total += float(functional.log_softmax(logits.float(), dim=1)[0, ids[place]])
        return total / (len(ids) - 1)

    images = some_images(model)[:2]
    blank = torch.zeros_like(images[0])
    expected = [[likelihood(image, text) - likelihood(blank, text) for text in TEXTS] for image in images]
    found = model.match(images, TEXTS)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)
    assert found.std() > 1e-5
    pairs = model.match_pairs(images, TEXTS[:2])
    torch.testing.assert_close(pairs, found[:, :2].diagonal(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_writing_takes_the_likeliest_token_step_by_step(family: str, nano: Scale, tmp_path: Path) -> None:
    model = untrained(family, nano, tmp_path / "model")
    images, prompts = some_images(model)[:3], ["", "a photo of", "red"]
    written = model.write(images, prompts, 6)
    for image, prompt, ids in zip(images, prompts, written, strict=True):
        said = [model.words.start, *model.words.encode(prompt)]
        expected = []
        for _ in range(6):
            expected.append(int(plain_logits(model, image[None], said + expected).argmax()))
        assert ids == (expected[: expected.index(model.words.end)] if model.words.end in expected else expected)
    assert model.generate(images, prompts, 6) == [model.words.decode(ids) for ids in written]
    assert [len(ids) <= 2 for ids in model.write(images, prompts, 2)] == [True] * 3
    long = model.write(images[:1], ["red " * 100], 5)  # no room for more than the context
    assert len(long[0]) <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_keeps_what_the_model_says(family: str, nano: Scale, tmp_path: Path) -> None:
    first = untrained(family, nano, tmp_path / "first")
    found = get_family(family)
    save_checkpoint(first.network, found, found.configure(nano), tmp_path / "second")
    second = load_checkpoint(tmp_path / "second", "cpu")
    images = some_images(first)
    assert torch.equal(first.match(images, TEXTS), second.match(images, TEXTS))
    assert first.generate(images, ["a"] * 4) == second.generate(images, ["a"] * 4)
    with pytest.raises(ValueError, match="has no embeddings"):
        first.embed_images(images)
    with pytest.raises(ValueError, match="names no boxes"):
        first.ground(images, ["red"] * 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_resumed_training_ends_as_an_uninterrupted_one(
    family: str, colours: Path, nano: Scale, tmp_path: Path
) -> None:
    whole = train(colours, tmp_path / "whole", scale=nano, family=family)
    for step in (6, 11):  # states are saved at steps 5 and 10
        with pytest.raises(Killed):
            train(colours, tmp_path / "parts", scale=nano, family=family, progress=killed_at(step))
    parts = train(colours, tmp_path / "parts", scale=nano, family=family)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")
    assert parts.loss == whole.loss


@pytest.mark.parametrize("family", ["decoder", {"name": "backbone", "stage0": 0.1, "stage1": 0.1}], ids=FAMILIES)
def test_it_learns_colours(
    family: Any, colours: Path, nano: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = dataclasses.replace(nano, samples_seen=16 * 250, lr=5e-3, log_steps=50, save_steps=500)
    train(colours, tmp_path / "out", scale=scale, family=family)
    model = load_checkpoint(tmp_path / "out", "cpu")
    images = some_images(model)
    captions = [TEMPLATES[i % 2].replace("{c}", name) for i, name in enumerate(COLOURS)]  # as in the shards
    assert model.generate(images, [""] * 4) == captions
    assert model.generate(images, ["A photo of something", "All of it is"] * 2) == list(COLOURS)
    right = torch.arange(4)
    assert (model.match(images, captions).argmax(1) == right).sum() >= 3  # what is likely by itself is a rough guess
    monkeypatch.setattr("trainer.families._generative.CALIBRATION", 0.0)
    assert (model.match(images, captions).argmax(1) == right).all()


def test_a_likelihood_counts_only_what_is_said() -> None:
    logits = torch.randn(2, 3, 5)
    tokens = torch.tensor([[0, 1, 2, 3], [0, 4, PAD, PAD]])
    log_p = functional.log_softmax(logits, dim=2)
    expected = torch.stack([(log_p[0, 0, 1] + log_p[0, 1, 2] + log_p[0, 2, 3]) / 3, log_p[1, 0, 4]])
    torch.testing.assert_close(mean_log_likelihood(logits, tokens), expected)


def test_about_a_tenth_of_the_images_is_blank_and_parts_of_a_batch_agree(nano: Scale) -> None:
    images = normalise(torch.full((200, 4, 4, 3), 200, dtype=torch.uint8), nano)
    tokens = torch.randint(0, 1000, (200, 5), generator=torch.Generator().manual_seed(0))

    def blanks(step: int, part: slice = slice(None)) -> torch.Tensor:
        seen = with_blanks(images[part], tokens[part], torch.tensor(step))
        blank = (seen == 0).flatten(1).all(1)
        assert torch.equal(seen[~blank], images[part][~blank])
        return blank

    assert 10 <= blanks(0).sum() <= 30
    assert torch.equal(torch.cat([blanks(0, slice(0, 7)), blanks(0, slice(7, 200))]), blanks(0))
    assert sum(blanks(step) for step in range(10)).eq(1).all()  # each sample in one of ten steps


def test_the_request_names_the_options(colours: Path, nano: Scale, tmp_path: Path) -> None:
    train(colours, tmp_path / "out", scale=nano, family={"name": "decoder", "grounding": True})
    request = json.loads((tmp_path / "out/request.json").read_text())
    assert request["family"] == {"name": "decoder", "grounding": True, "grid": 16}
    assert request["scale"]["augment"] == "none"  # a shifted image would have its boxes elsewhere
