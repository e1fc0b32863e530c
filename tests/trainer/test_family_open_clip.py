"""Every family learns, is resumed and is read back; what is open_clip's gives open_clip's losses and loads there."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.loss import SigLipLoss
from safetensors.torch import load_file
from trainer_samples import COLOURS, jpeg

from trainer.checkpoint import load_checkpoint, save_checkpoint
from trainer.distributed import World
from trainer.family import Family, get_family
from trainer.images import open_image
from trainer.model import build_tokenizer, merges, model_config
from trainer.scales import SCALES, Scale
from trainer.train import train

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
CAPTIONS = ["a photo of something red", "all of it is green", "blue", "something yellow", "red and blue", "a thing"]
HARD: dict[str, Any] = {"name": "clip", "hard_negatives": True}
# What the families that need patches have at nano; the convolutions are for those that need not load in open_clip.
PATCHES: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"patch_size": 8, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 1000, "width": 32, "heads": 2, "layers": 1},
    "custom_text": True,
}
FAMILIES = ["clip", "siglip", "llip", "masked", "coca", HARD, {"name": "siglip", "hard_negatives": True}]
each_family = pytest.mark.parametrize(
    "family", FAMILIES, ids=lambda f: f if isinstance(f, str) else f"{f['name']}-hard"
)


def sized(family: str | dict[str, Any], nano: Scale, steps: int) -> Scale:
    """So few steps of the nano scale, with patches for the families that need them."""
    model = {"coca": PATCHES, "llip": PATCHES | {"stem": "convolutions"}, "masked": PATCHES | {"stem": "convolutions"}}
    nano = dataclasses.replace(nano, samples_seen=16 * steps)
    return dataclasses.replace(nano, model=model[family]) if isinstance(family, str) and family in model else nano


def built(family: str | dict[str, Any], nano: Scale) -> tuple[Family, Scale, Any, torch.Tensor, torch.Tensor]:
    """A fresh model with a batch for it."""
    made = get_family(family)
    scale = made.configure(sized(family, nano, 1))
    model = made.build(scale, 0, CPU)
    torch.manual_seed(1)
    return made, scale, model, torch.randn(6, 3, 32, 32), made.tokenizer(scale)(CAPTIONS)


def colours_right(out: Path) -> tuple[int, torch.Tensor]:
    """How many of forty new images fit the caption of their colour best, and how well all fit."""
    model = load_checkpoint(out)
    names = list(COLOURS)
    pictures = [open_image(jpeg(COLOURS[names[i % 4]], seed=1000 + i)) for i in range(40)]
    images = torch.stack([model.preprocess(picture) for picture in pictures])
    fits = model.match(images, [f"a photo of something {name}" for name in names])
    return int((fits.argmax(1) == torch.arange(40) % 4).sum()), fits


@each_family
def test_it_learns_colours(family: str | dict[str, Any], colours: Path, tmp_path: Path, nano: Scale) -> None:
    train(colours, tmp_path / "out", scale=sized(family, nano, 100), family=family)
    right, fits = colours_right(tmp_path / "out")
    assert fits.shape == (40, 4)
    assert right >= 20  # chance is 10; of 40 at chance, 20 or more in one of 1,700


@each_family
def test_a_resumed_training_ends_as_an_uninterrupted_one(
    family: str | dict[str, Any], colours: Path, tmp_path: Path, nano: Scale
) -> None:
    def stop(record: dict[str, Any]) -> None:
        if record["step"] >= 6:  # a state is saved at step 5
            raise KeyboardInterrupt

    scale = sized(family, nano, 8)
    whole = train(colours, tmp_path / "whole", scale=scale, family=family)
    with pytest.raises(KeyboardInterrupt):
        train(colours, tmp_path / "parts", scale=scale, family=family, progress=stop)
    parts = train(colours, tmp_path / "parts", scale=scale, family=family)
    (a,), (b,) = (list(result.checkpoint.glob("*.safetensors")) for result in (whole, parts))
    left, right = load_file(a), load_file(b)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@each_family
def test_what_is_read_back_matches_as_what_was_saved(family: str | dict[str, Any], tmp_path: Path, nano: Scale) -> None:
    made, scale, model, images, _ = built(family, nano)
    save_checkpoint(model, made, scale, tmp_path / "a")
    first = load_checkpoint(tmp_path / "a")
    shared = first.network.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(value, shared[name]) for name, value in model.state_dict().items())
    second = load_checkpoint(tmp_path / "a")
    fits = first.match(images, CAPTIONS[:3])
    assert fits.shape == (6, 3)
    assert torch.equal(fits, second.match(images, CAPTIONS[:3]))
    pairs = first.match_pairs(images[:3], CAPTIONS[:3])
    torch.testing.assert_close(pairs, first.match(images[:3], CAPTIONS[:3]).diagonal(), atol=1e-4, rtol=1e-4)


def test_the_loss_of_clip_is_open_clips(nano: Scale) -> None:
    made, _, model, images, tokens = built("clip", nano)
    outputs = model(images, tokens)
    theirs = open_clip.ClipLoss()(outputs["image_features"], outputs["text_features"], outputs["logit_scale"])
    assert torch.equal(made.loss(outputs, tokens, ALONE), theirs)


def test_the_loss_of_siglip_is_open_clips(nano: Scale) -> None:
    made, _, model, images, tokens = built("siglip", nano)
    outputs = model(images, tokens)
    assert (outputs["logit_bias"].item(), outputs["logit_scale"].item()) == pytest.approx((-math.log(16), 10))
    assert torch.equal(made.loss(outputs, tokens, ALONE), SigLipLoss()(**outputs))


def test_the_loss_of_coca_is_open_clips(nano: Scale) -> None:
    made, scale, model, images, tokens = built("coca", nano)
    ours = made.loss(model(images, tokens), tokens, ALONE)
    plain = open_clip.CoCa(**{k: v for k, v in model_config(scale).items() if k != "custom_text"})
    plain.load_state_dict(model.state_dict())
    theirs = open_clip.CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=1.0)(**plain(images, tokens))
    torch.testing.assert_close(ours, sum(theirs))


def test_hard_negatives_add_to_the_loss_of_clip(nano: Scale) -> None:
    made, _, model, images, tokens = built(HARD, nano)
    assert tokens.shape == (6, 2, 12)
    outputs = model(images, tokens)
    images_, texts, scale = outputs["image_features"], outputs["text_features"], outputs["logit_scale"]
    there = tokens[:, 1].any(1)
    assert there.tolist() == [True] * 5 + [False]  # "a thing" has no hard negative
    every = scale * images_ @ torch.cat([texts, outputs["negative_features"][there]]).T
    labels = torch.arange(6)
    cross = torch.nn.functional.cross_entropy
    expected = (cross(every, labels) + cross(scale * texts @ images_.T, labels)) / 2
    torch.testing.assert_close(made.loss(outputs, tokens, ALONE), expected)


def test_hard_negatives_add_to_the_loss_of_siglip(nano: Scale) -> None:
    made, _, model, images, tokens = built({"name": "siglip", "hard_negatives": True}, nano)
    outputs = model(images, tokens)
    there = tokens[:, 1].any(1)
    logits = outputs["logit_scale"] * outputs["image_features"] @ outputs["negative_features"][there].T
    wrong = torch.nn.functional.softplus(logits + outputs["logit_bias"]).sum() / 6
    plain = {name: value for name, value in outputs.items() if name != "negative_features"}
    torch.testing.assert_close(made.loss(outputs, tokens, ALONE), SigLipLoss()(**plain) + wrong)


@pytest.mark.parametrize("family", ["clip", "siglip", "coca", HARD], ids=["clip", "siglip", "coca", "hard"])
def test_open_clip_loads_the_checkpoint(family: str | dict[str, Any], tmp_path: Path, nano: Scale) -> None:
    made, scale, model, images, _ = built(family, nano)
    save_checkpoint(model, made, scale, tmp_path / "out")
    theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}/out")
    cut = {"bpe_path": f"{tmp_path}/out/merges.txt.gz"} if family == "coca" else {}
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}/out", **cut)
    ours = load_checkpoint(tmp_path / "out")
    with torch.inference_mode():
        fits = theirs.eval().encode_image(images, normalize=True) @ theirs.encode_text(tokenizer(["red"]), True).T
    torch.testing.assert_close(ours.match(images, ["red"]), fits, atol=1e-5, rtol=1e-4)


def test_coca_writes_what_it_was_taught(tmp_path: Path, colours: Path, nano: Scale) -> None:
    train(colours, tmp_path / "out", scale=sized("coca", nano, 100), family="coca")
    model = load_checkpoint(tmp_path / "out")
    images = torch.stack([model.preprocess(open_image(jpeg(COLOURS[name], seed=77))) for name in COLOURS])
    captions = model.generate(images, [""] * 4)
    assert all(caption.startswith(("a photo of something", "all of it is")) for caption in captions)
    continued = model.generate(images[:2], ["all of it", "a photo of something"], max_tokens=2)
    assert continued[0].startswith("is")
    assert continued[1] in COLOURS
    assert model.generate(images[:1], [""], max_tokens=0) == [""]


def test_masked_hides_a_share_and_learns_from_it_alone(nano: Scale) -> None:
    made, _, model, images, tokens = built("masked", nano)
    outputs = model(images, tokens)
    assert 5 < outputs["words_loss"].item() < 9  # log(1000) is 6.9
    assert 0.9 < outputs["patches_loss"].item() < 1.6  # patches have deviation 1
    assert outputs["match_loss"].item() == pytest.approx(1.39, abs=0.4)  # log(4)
    assert torch.isfinite(made.loss(outputs, tokens, ALONE))


def test_llip_mixes_another_vector_for_each_caption(nano: Scale) -> None:
    made, _, model, images, tokens = built("llip", nano)
    outputs = model(images, tokens)
    assert outputs["values"].shape[:3] == (6, 8, 8)
    alone = made.loss({name: v[:1] if v.ndim else v for name, v in outputs.items()}, tokens[:1], ALONE)
    fits = outputs["logit_scale"] * torch.ones(1) + outputs["logit_bias"]  # the best that one pair can be
    assert alone.item() >= torch.nn.functional.softplus(-fits).item()


@pytest.mark.parametrize("family", ["siglip", "llip", "masked", "coca"])
def test_each_scale_has_a_named_model_of_open_clip(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_meta(scale: Scale, seed: int, device: torch.device) -> torch.nn.Module:
        config = model_config(scale)
        return (open_clip.CoCa if config.pop("custom_text", False) else open_clip.CLIP)(**config)

    for name in ("_open_clip", "siglip", "coca"):
        monkeypatch.setattr(f"trainer.families.{name}.build_model", on_meta)
    made = get_family(family)
    for name, patch in (("small", 32), ("large", 16)):
        scale = made.configure(SCALES[name])
        assert isinstance(scale.model, dict)
        assert (scale.model["vision_cfg"]["patch_size"], scale.model["vision_cfg"]["width"]) == (patch, 768)
        assert build_tokenizer(scale)(["red"])[0, 0] == 49406
        assert made.configure(scale) == scale  # as a resumed training does
        json.dumps(scale.as_dict())
    with torch.device("meta"):
        assert sum(p.numel() for p in made.build(scale, 0, torch.device("meta")).parameters()) > 100_000_000


@pytest.mark.parametrize("family", ["llip", "masked", "coca"])
def test_tiny_has_smaller_steps_for_a_transformer_unless_they_are_given(family: str) -> None:
    made, tiny = get_family(family), SCALES["tiny"]
    scale = made.configure(tiny)
    rate, samples = (1.2e-3, 64_000) if family == "coca" else (1e-3, 32_000)
    assert (scale.batch_size, scale.lr, scale.samples_seen) == (64, rate, samples)
    assert made.configure(scale) == scale
    given = made.configure(dataclasses.replace(tiny, batch_size=32))
    assert (given.batch_size, given.lr, given.samples_seen) == (32, tiny.lr, tiny.samples_seen)


def test_a_small_vocabulary_is_the_start_of_clips(nano: Scale) -> None:
    model = json.loads(json.dumps(nano.model))
    model["text_cfg"]["vocab_size"] = 1000
    small: Any = build_tokenizer(dataclasses.replace(nano, model=model))
    assert (small.vocab_size, small.sot_token_id, small.eot_token_id) == (1000, 998, 999)
    tokens = small(["the photo of something red"])
    assert tokens.max() == 999
    assert small.decode([t for t in tokens[0].tolist() if 0 < t < 998]).strip() == "the photo of something red"
    with pytest.raises(ValueError, match="vocab_size 100 is not in"):
        merges(100)


def test_a_model_with_another_tokenizer_is_refused(nano: Scale) -> None:
    with pytest.raises(ValueError, match="tokenizer that is not CLIP's"):
        build_tokenizer(dataclasses.replace(nano, model="ViT-B-16-SigLIP"))
