import dataclasses
import json
import pickle
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from trainer_samples import COLOURS, TEMPLATES, jpeg

from trainer.checkpoint import find_checkpoint, load_checkpoint, load_state, save_checkpoint, save_state
from trainer.families.clip import Clip
from trainer.images import open_image, to_square
from trainer.model import build_model, build_tokenizer, normalise, open_clip_config
from trainer.scales import Scale
from trainer.train import train

CPU = torch.device("cpu")


def test_open_clip_loads_what_was_saved(tmp_path: Path, nano: Scale) -> None:
    model = build_model(nano, 1, CPU)
    model(torch.rand(8, 3, 32, 32), build_tokenizer(nano)(["red"] * 8))  # moves the batch norms' statistics
    save_checkpoint(model, Clip(), nano, tmp_path / "checkpoint")
    loaded, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}/checkpoint")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}/checkpoint")

    images = [open_image(jpeg(colour, size=(50, 40))) for colour in COLOURS.values()]
    captions = [template.replace("{c}", name) for name in COLOURS for template in TEMPLATES]
    model.eval(), loaded.eval()
    with torch.inference_mode():
        ours = normalise(torch.stack([torch.tensor(to_square(i, 32, "squash")) for i in images]), nano)
        theirs = torch.stack([preprocess(i) for i in images])
        assert torch.allclose(ours, theirs, atol=1e-5)
        assert torch.allclose(
            model.encode_image(ours, normalize=True), loaded.encode_image(theirs, normalize=True), atol=1e-5
        )
        tokens = build_tokenizer(nano)(captions)
        assert torch.equal(tokens, tokenizer(captions))
        assert tokens.shape == (8, 12)
        assert torch.allclose(
            model.encode_text(tokens, normalize=True), loaded.encode_text(tokens, normalize=True), atol=1e-5
        )
        assert torch.equal(model.logit_scale, loaded.logit_scale)


def test_a_trained_checkpoint_is_found_in_its_out_and_says_how_to_preprocess(
    colours: Path, tmp_path: Path, nano: Scale
) -> None:
    result = train(colours, tmp_path / "out", scale=nano, samples_seen=16)
    assert find_checkpoint(tmp_path / "out") == find_checkpoint(result.checkpoint) == tmp_path / "out/checkpoint"
    config = json.loads((result.checkpoint / "open_clip_config.json").read_text())
    assert config["preprocess_cfg"]["resize_mode"] == "squash"
    assert config["model_cfg"]["vision_cfg"]["image_size"] == 32
    assert json.loads((result.checkpoint / "family.json").read_text()) == {"name": "clip", "hard_negatives": False}
    model = load_checkpoint(tmp_path / "out")
    image = model.preprocess(Image.new("RGB", (70, 50)))
    assert image.shape == (3, 32, 32)
    pictures, texts = model.embed_images(image[None]), model.embed_texts(["red", "blue"])
    assert torch.allclose(model.match(image[None], ["red", "blue"]), pictures @ texts.T)
    assert torch.allclose(model.match_pairs(image[None], ["blue"]), (pictures @ texts[1:].T)[0])
    with pytest.raises(ValueError, match="clip writes no text"):
        model.generate(image[None], [""])


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"checkpoint: .* holds no family.json or open_clip_config.json"):
        load_checkpoint(tmp_path)


def test_cut_padding_changes_no_feature(nano: Scale) -> None:
    model = build_model(nano, 0, CPU).eval()
    config = open_clip_config(nano)["model_cfg"]
    del config["custom_text"]  # the class says it
    plain = open_clip.CustomTextCLIP(**config)
    plain.load_state_dict(model.state_dict())
    tokens = build_tokenizer(nano)(["red", "a photo of something green", "a " * 40])
    for rows in (tokens, tokens[:2], tokens[:1]):
        with torch.inference_mode():
            assert torch.allclose(model.encode_text(rows), plain.eval().encode_text(rows), atol=1e-6)


def test_a_named_model_of_open_clip_is_built(nano: Scale) -> None:
    scale = dataclasses.replace(nano, model="RN50", image_size=32)
    with torch.device("meta"):
        config = open_clip_config(scale)["model_cfg"]
        assert config["vision_cfg"]["image_size"] == 32
        assert sum(p.numel() for p in open_clip.CLIP(**config).parameters()) > 90_000_000
    assert build_tokenizer(scale)(["red"]).shape == (1, 77)


def test_a_state_is_read_back_without_running_code(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", {"step": 3, "weights": torch.arange(3)})
    assert load_state(tmp_path / "state.pt")["step"] == 3

    torch.save({"step": Path("x")}, tmp_path / "state.pt")
    with pytest.raises(pickle.UnpicklingError):
        load_state(tmp_path / "state.pt")
