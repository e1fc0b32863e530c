from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_family_generative import some_images
from trainer_samples import COLOURS

from trainer.checkpoint import load_checkpoint
from trainer.families._fresh_language import fresh_tokenizer
from trainer.families._towers import open_language, open_tokenizer
from trainer.families._words import Words
from trainer.families.backbone import PARTS, Backbone
from trainer.family import get_family
from trainer.scales import SCALES, Scale
from trainer.train import train

CPU = torch.device("cpu")
TEXTS = ["a photo of something red", "all of it is blue"]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Hugging Face's library writes it: a GPT-2 of one layer, whose words are letters."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = {character: number for number, character in enumerate("Ġabcdefghijklmnopqrstuvwxyz")}
    tokenizer = Tokenizer(models.BPE(letters | {"<|endoftext|>": len(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("gpt2")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    config = transformers.GPT2Config(
        vocab_size=28, n_embd=16, n_layer=1, n_head=2, n_positions=128, bos_token_id=27, eos_token_id=27
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def clip(colours: Path, nano: Scale, tmp_path: Path) -> Path:
    """The OUT of a training of the family `clip`."""
    train(colours, tmp_path / "clip", scale=dataclasses.replace(nano, image_size=48), samples_seen=16)
    return tmp_path / "clip"


def parts(out: Path) -> dict[str, dict[str, torch.Tensor]]:
    files = {"vision": "vision", "projector": "projector", "language": "language/model"}
    return {part: load_file(out / f"checkpoint/{file}.safetensors") for part, file in files.items()}


def changed(family: Backbone, scale: Scale, out: Path) -> set[str]:
    """The parts that the training changed; a running mean is as much of a part as a weight is."""
    fresh: Any = family.build(family.configure(scale), 0, CPU)
    found = set()
    for part, trained in parts(out).items():
        before = getattr(fresh, part).state_dict()
        if any(not torch.equal(before[name], value) for name, value in trained.items()):
            found.add(part)
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"stage1": 1.0, "unfreeze": "all"}, {"projector"}),
        ({"stage1": 0.5, "unfreeze": "none"}, {"projector"}),
        ({"stage1": 0.5}, {"projector", "language"}),
        ({"stage1": 0.5, "unfreeze": "all"}, {"vision", "projector", "language"}),
    ],
)
def test_a_stage_changes_only_what_it_trains(
    options: dict[str, Any], expected: set[str], colours: Path, nano: Scale, clip: Path, gpt2: Path, tmp_path: Path
) -> None:
    family = Backbone(vision=str(clip), language_model=str(gpt2), **options)
    result = train(colours, tmp_path / "out", scale=nano, family=family, samples_seen=16 * 4)
    assert changed(family, nano, tmp_path / "out") == expected
    assert result.scale["image_size"] == 48  # the tower's own


def test_what_is_fresh_learns_in_its_turn(nano: Scale, gpt2: Path) -> None:
    fresh = Backbone()
    assert [fresh.stage(step, 100) for step in (0, 19, 20, 49, 50, 99)] == [0, 0, 1, 1, 2, 2]
    assert [fresh.trained(stage) for stage in range(3)] == [{"language"}, {"projector", "vision"}, {*PARTS}]
    given = Backbone(vision="ViT-B-32", language_model=str(gpt2))
    assert [given.stage(step, 100) for step in (0, 29, 30, 99)] == [1, 1, 2, 2]
    assert [given.trained(stage) for stage in (1, 2)] == [{"projector"}, {"projector", "language"}]

    model: Any = fresh.build(fresh.configure(nano), 0, CPU)
    for step, training in ((0, {"language"}), (20, {"projector", "vision"}), (99, {*PARTS})):
        assert fresh.before_step(model, step, 100) == 1.0
        assert {part for part in PARTS if next(getattr(model, part).parameters()).requires_grad} == training
        assert {part for part in PARTS if getattr(model, part).training} == training
        assert model.training
    assert [Backbone(language_model="x", rate2=r).rate2 for r in (None, 0.5)] == [None, 0.5]


def test_stage_0_reads_no_image(nano: Scale) -> None:
    family = Backbone()
    scale = family.configure(nano)
    model: Any = family.build(scale, 0, CPU)
    tokens = family.tokenizer(scale)(TEXTS)
    images = torch.randn(2, 3, 2, nano.image_size, nano.image_size).unbind(2)
    family.before_step(model, 0, 100)
    assert torch.equal(*(model(one, tokens)["logits"] for one in images))
    family.before_step(model, 20, 100)
    assert not torch.equal(*(model(one, tokens)["logits"] for one in images))


def test_a_hugging_face_model_says_what_it_said(
    gpt2: Path, clip: Path, colours: Path, nano: Scale, tmp_path: Path
) -> None:
    """Frozen, the language model in the checkpoint is the one that was given, with its own words."""
    import transformers

    family = Backbone(vision=str(clip), language_model=str(gpt2), unfreeze="none")
    train(colours, tmp_path / "out", scale=nano, family=family, samples_seen=16 * 2)
    kept = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out/checkpoint/language").eval()
    given = transformers.AutoModelForCausalLM.from_pretrained(gpt2).eval()
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    assert torch.equal(kept(ids).logits, given(ids).logits)
    model = load_checkpoint(tmp_path / "out", "cpu")
    assert model.words.start == model.words.end == 27  # no token of its own for the start
    assert model.words.decode(model.words.encode("all of it")) == "all of it"
    images = some_images(model)
    assert model.match(images, TEXTS).isfinite().all()
    assert len(model.generate(images, [""] * len(COLOURS), 4)) == len(COLOURS)


def test_a_caption_cannot_end_itself(gpt2: Path) -> None:
    words = open_tokenizer(str(gpt2), 24)
    assert words.encode("red<|endoftext|>") == words.encode("red")
    assert torch.equal(pickle.loads(pickle.dumps(words))(TEXTS), words(TEXTS))  # noqa: S301
    rows = words(["red", "red " * 40])
    assert rows.shape == (2, 24)
    assert rows[:, 0].tolist() == [27, 27]
    assert rows[1, -1] == 27


def test_the_fresh_tokenizer_is_clips() -> None:
    fresh, words = fresh_tokenizer(2048, 24), Words(2048, 24)
    for text in ("It's a Photo of  2 red stars", "naïve café 日本!", "under-water"):
        assert fresh.encode(text) == words.encode(text)
        assert fresh.decode(fresh.encode(text)) == words.decode(words.encode(text))
    assert (fresh.start, fresh.end) == (words.start, words.end)


def test_a_vit_gives_its_patches(nano: Scale, tmp_path: Path, colours: Path) -> None:
    model = json.loads(json.dumps(nano.model))
    model["vision_cfg"] = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
    train(colours, tmp_path / "vit", scale=dataclasses.replace(nano, model=model), samples_seen=16)
    family = Backbone(vision=str(tmp_path / "vit"))
    network: Any = family.build(family.configure(nano), 0, CPU)
    assert (network.vision.layers, network.vision.width) == ([1], 32)
    assert network.vision(torch.zeros(2, 3, 32, 32)).shape == (2, 16, 32)
    kept = load_checkpoint(tmp_path / "vit", "cpu").network.visual.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(value, kept[name]) for name, value in network.vision.tower.state_dict().items())


def test_a_small_resnet_gives_places_and_what_it_says_in_the_end(nano: Scale) -> None:
    network: Any = Backbone().build(Backbone().configure(nano), 0, CPU)
    maps = network.vision.tower.forward_intermediates(torch.ones(2, 3, 32, 32), intermediates_only=True)
    shapes = [tuple(found.shape[1:]) for found in maps["image_intermediates"]]
    assert shapes == [(8, 8, 8), (32, 8, 8), (64, 4, 4), (128, 2, 2), (256, 1, 1)]
    assert network.vision(torch.ones(2, 3, 32, 32)).shape == (2, 16, 64 + 256)


def test_a_named_tower_brings_its_preprocessing() -> None:
    scale = Backbone(vision="ViT-B-16-SigLIP", pretrained="webli").configure(SCALES["small"])
    assert (scale.image_size, scale.mean, scale.resize_mode) == (224, (0.5, 0.5, 0.5), "squash")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unfreeze": "some"}, "unfreeze must be one of none, language, all, not 'some'"),
        ({"stage1": 1.5}, "stage0 and stage1 are shares"),
        ({"vision": "ViT-Z"}, "'ViT-Z' is neither a folder nor a model of open_clip's"),
        ({"vision": "ViT-B-32", "pretrained": "mine"}, "pretrained: ViT-B-32 has no 'mine', only openai"),
        ({"vision": "/"}, "holds no family.json"),
        ({"language_model": "/nowhere/at/all"}, "language_model: /nowhere/at/all cannot be read"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, Any], message: str, colours: Path, nano: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=message):
        train(colours, tmp_path / "out", scale=nano, family=get_family({"name": "backbone", **options}))


def test_pickled_weights_and_code_of_a_model_are_refused(gpt2: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((gpt2 / name).read_bytes())
    torch.save(load_file(gpt2 / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be read"):
        open_language(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    own = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config | own))
    (tmp_path / "mine.py").write_text("raise SystemExit('run')")
    with pytest.raises(ValueError, match="cannot be read"):
        open_language(str(tmp_path))


SCRIPT = """
import json, sys
from trainer.scales import Scale
from trainer.train import train
shards, out, scale, family = sys.argv[1:]
train(shards, out, scale=Scale(**json.loads(scale)), family=json.loads(family), device="cpu")
"""


@pytest.mark.slow
def test_two_processes_go_through_the_stages_as_one(colours: Path, nano: Scale, gpt2: Path, tmp_path: Path) -> None:
    # Without batch norm, whose statistics are per process, two halves of a batch are the whole batch.
    vit = json.loads(json.dumps(nano.model))
    vit["vision_cfg"] = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
    train(colours, tmp_path / "vit", scale=dataclasses.replace(nano, model=vit), samples_seen=16)
    family = {"name": "backbone", "vision": str(tmp_path / "vit"), "language_model": str(gpt2), "unfreeze": "all"}
    scale = dataclasses.replace(nano, augment="none", samples_seen=16 * 6)
    train(colours, tmp_path / "one", scale=scale, family=family, device="cpu")
    (tmp_path / "run.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    request = [str(tmp_path / "run.py"), str(colours), str(tmp_path / "two"), json.dumps(scale.as_dict())]
    command = [*torchrun, *request, json.dumps(family)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    one, two = parts(tmp_path / "one"), parts(tmp_path / "two")
    for part in PARTS:
        for name in one[part]:
            torch.testing.assert_close(one[part][name], two[part][name], atol=1e-3, rtol=0)
