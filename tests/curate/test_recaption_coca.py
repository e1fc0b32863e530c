"""The backend `coca` writes what open_clip's own generation writes, and the same whatever else it is asked."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import transformers
from open_clip import coca_model
from PIL import Image
from safetensors.torch import save_file

from curate.errors import RequestError
from curate.recaption.backends.coca import Coca, _load, as_text
from curate.recaption.contract import Answer, Request
from curate.recaption.local.batches import ready
from curate.recaption.local.choose import choose, uniforms
from trainer.model import merges

VOCABULARY = 1000
START, END = VOCABULARY - 2, VOCABULARY - 1
GREEDY: dict[str, Any] = {
    "generation_type": "top_k", "top_k": 1, "min_seq_len": 0, "sot_token_id": START, "eos_token_id": END,
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 24, "layers": 1, "head_width": 12,
                   "attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 6, "output_tokens": True},
    "text_cfg": {"context_length": 20, "vocab_size": VOCABULARY, "width": 24, "heads": 2, "layers": 2,
                 "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {"context_length": 20, "vocab_size": VOCABULARY, "width": 24, "heads": 2, "layers": 2},
    "custom_text": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CoCa of random weights, large enough that it writes something else of every image."""
    folder = tmp_path_factory.mktemp("coca")
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess}))
    (folder / "merges.txt.gz").write_bytes(merges(VOCABULARY))
    torch.manual_seed(5)
    model: Any = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.4)
        bias = model.text_decoder.ln_final.bias.normal_(std=0.5)
        model.text_decoder.text_projection[:, END] += 0.5 * bias  # some captions end
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder


@pytest.fixture
def generates(monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip 3.3 turns its `generate` off where transformers has no beam search for it; the rest of it works."""
    monkeypatch.setattr(coca_model, "_has_transformers", True)
    monkeypatch.setitem(coca_model.GENERATION_TYPES, "top_k", transformers.TopKLogitsWarper)


def picture(number: int, side: int = 40) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (side, side + number % 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG" if number % 2 else "JPEG")
    return file.getvalue()


def asked(count: int, prompt: str = "", seed: int = 0) -> list[Request]:
    return [Request(f"u{n}", 0, prompt, seed, "its own caption", picture(n)) for n in range(count)]


def said(backend: Coca, requests: list[Request]) -> dict[str, str | None]:
    return {answer.uid: answer.caption for answer in backend.write(requests)}


@pytest.fixture
def coca(checkpoint: Path) -> Coca:
    return Coca(model=str(checkpoint), batch_size=8, max_tokens=12)


def test_it_writes_what_open_clip_generates(coca: Coca, generates: None) -> None:
    loaded = _load(coca)
    requests = asked(8)
    (batch,) = ready(requests, 8, loaded.side, loaded.prepare)
    pixels = np.stack(batch.inputs)
    ours = coca.tokens(loaded, pixels, [[]] * 8, requests)
    theirs = loaded.model.network.generate(loaded.normalised(pixels), seq_len=14, **GREEDY)
    assert len({tuple(tokens) for tokens, _ in ours}) > 4
    assert {ended for _, ended in ours} == {True, False}
    for (tokens, ended), row in zip(ours, theirs.tolist(), strict=True):
        written = row[1:]  # without the start; its last token is always the end
        assert tokens == (written[: written.index(END)] if ended else written[: len(tokens)])
        assert ended or len(tokens) == 12


def test_prompts_of_any_length_are_continued_as_open_clip_does(coca: Coca, generates: None) -> None:
    loaded = _load(coca)
    requests = asked(8)
    (batch,) = ready(requests, 8, loaded.side, loaded.prepare)
    prompts = [loaded.tokenizer.encode(text) for text in ["", "a", "a photo of", "two red cars and a boat"] * 2]
    ours = coca.tokens(loaded, np.stack(batch.inputs), prompts, requests)
    for number, (prompt, (tokens, _)) in enumerate(zip(prompts, ours, strict=True)):
        theirs = loaded.model.network.generate(
            loaded.normalised(batch.inputs[number][None]), torch.tensor([[START, *prompt]]),
            seq_len=min(20, len(prompt) + 14), **GREEDY,
        )[0].tolist()  # fmt: skip
        assert theirs[1 : 1 + len(prompt)] == prompt
        written = theirs[1 + len(prompt) : -1]  # where it has no more room, its last token is always the end
        assert tokens[: len(written)] == written
        assert len(tokens) - len(written) in (0, 1)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_caption_is_the_same_whatever_batch_it_is_in(coca: Coca, temperature: float) -> None:
    backend = coca.model_copy(update={"temperature": temperature, "top_p": 0.9})
    requests = asked(11)
    whole = said(backend, requests)
    assert len(set(whole.values())) > 5
    assert said(backend, requests[::-1]) == whole
    assert said(backend, requests[3:6]) == {f"u{n}": whole[f"u{n}"] for n in (3, 4, 5)}


def test_seeds_and_numbers_draw_other_captions(coca: Coca) -> None:
    backend = coca.model_copy(update={"temperature": 1.0})
    one, other = said(backend, asked(6)), said(backend, asked(6, seed=1))
    assert sum(one[uid] != other[uid] for uid in one) >= 4
    again = [Request(r.uid, 1, r.prompt, r.seed, r.caption, r.image) for r in asked(6)]
    assert sum(one[uid] != text for uid, text in said(backend, again).items()) >= 4


def test_a_caption_begins_with_its_prompt(coca: Coca) -> None:
    assert all(str(text).startswith("a photo of") for text in said(coca, asked(3, prompt="A photo of")).values())


def test_images_that_cannot_be_read_are_answers(coca: Coca) -> None:
    requests = [*asked(2), Request("broken", 0, "", 0, "", b"\xff\xd8no"), Request("none", 0, "", 0, "")]
    answers = {answer.uid: answer for answer in coca.write(requests)}
    assert answers["u0"].caption
    assert answers["u0"].tokens_in == 1
    assert answers["broken"].caption is None
    assert "image cannot be" in str(answers["broken"].error)
    assert answers["none"] == Answer("none", 0, None, "no image")


def test_requests_are_taken_only_as_fast_as_the_model_works(coca: Coca) -> None:
    taken = 0

    def endless() -> Iterator[Request]:
        nonlocal taken
        while True:
            taken += 1
            yield Request(f"u{taken}", 0, "", 0, "", picture(taken % 9))

    answers = coca.write(endless())
    next(answers)
    assert taken <= 8 * 5
    answers.close()  # type: ignore[attr-defined]


def test_what_requests_raise_is_raised(coca: Coca) -> None:
    def failing() -> Iterator[Request]:
        yield from asked(3)
        raise OSError("the shard is gone")

    with pytest.raises(OSError, match="the shard is gone"):
        list(coca.write(failing()))


def test_facts_name_the_weights_and_not_the_folder(coca: Coca, checkpoint: Path, tmp_path: Path) -> None:
    facts = coca.facts()
    assert str(checkpoint) not in json.dumps(facts)
    assert len(facts["weights"]) == 64
    assert coca.model_name == f"coca-{facts['weights'][:12]}"
    (tmp_path / "checkpoint").symlink_to(checkpoint)
    assert Coca(model=str(tmp_path), max_tokens=12, batch_size=3, threads=1, device="cpu").facts() == facts
    assert Coca(model=str(checkpoint), max_tokens=13).facts() != facts


@pytest.mark.parametrize(
    ("model", "pretrained", "said"),
    [("coca_ViT-B-32", "no-such-tag", "neither a file nor a tag"), ("no-such", "x", "knows no architecture")],
)
def test_a_wrong_model_is_one_clear_line(model: str, pretrained: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as wrong:
        Coca(model=model, pretrained=pretrained).facts()
    assert str(wrong.value).startswith("backend.coca")


def test_what_does_not_write_is_refused(tmp_path: Path) -> None:
    vision = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 1, "head_width": 12}
    text = {"context_length": 20, "width": 24, "heads": 2, "layers": 1}
    model = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
    made = open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False)
    save_file(made.state_dict(), tmp_path / "open_clip_model.safetensors")
    with pytest.raises(RequestError, match="is no CoCa"):
        list(Coca(model=str(tmp_path)).write(asked(1)))


def test_punctuation_stands_where_people_put_it() -> None:
    assert as_text("a dog 's bed , and ( maybe ) a cat .<|endoftext|>") == "a dog's bed, and (maybe) a cat."
    assert as_text("it 's 5 o 'clock !") == "it's 5 o 'clock!"


def test_only_likely_tokens_are_drawn_and_as_often_as_they_are_likely() -> None:
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05])
    drawn = torch.linspace(0, 1, 4001)[:-1]
    found = choose(shares.log().expand(4000, 4), drawn, 1.0, 0.7)
    assert found.bincount(minlength=4).tolist() == pytest.approx([2500, 1500, 0, 0], abs=2)
    assert choose(shares.log().expand(2, 4), torch.zeros(2), 0.0, 1.0).tolist() == [0, 0]
    flat = choose(shares.log().expand(4000, 4), drawn, 100.0, 1.0).bincount(minlength=4)
    assert flat.tolist() == pytest.approx([1000] * 4, abs=20)


def test_random_numbers_belong_to_the_request() -> None:
    first, second = uniforms(asked(2), 5)
    assert np.array_equal(uniforms(asked(3)[1:], 5)[0], second)
    assert not np.array_equal(first, second)
