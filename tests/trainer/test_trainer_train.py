import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trainer_samples import colour_samples, write_tar

from trainer.scales import SCALES, Scale, get_scale
from trainer.train import learning_rate, train


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoint/open_clip_model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


class Killed(Exception):
    """Stands for a process that ends in the midst of a training."""


def killed_at(step: int) -> Any:
    def progress(record: dict[str, Any]) -> None:
        if record["step"] >= step:
            raise Killed

    return progress


def test_the_same_request_gives_the_same_losses_and_weights(colours: Path, tmp_path: Path, nano: Scale) -> None:
    train(colours, tmp_path / "a", scale=nano, seed=3)
    train(colours, tmp_path / "b", scale=nano, seed=3)
    train(colours, tmp_path / "c", scale=nano, seed=4)
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_a_resumed_training_ends_as_an_uninterrupted_one(colours: Path, tmp_path: Path, nano: Scale) -> None:
    whole = train(colours, tmp_path / "whole", scale=nano)
    for step in (6, 11):  # states are saved at steps 5 and 10
        with pytest.raises(Killed):
            train(colours, tmp_path / "parts", scale=nano, progress=killed_at(step))
        assert (tmp_path / "parts/state.pt").is_file()
        assert not (tmp_path / "parts/train.json").exists()
    parts = train(colours, tmp_path / "parts", scale=nano)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert (parts.loss, parts.keys, parts.data) == (whole.loss, whole.keys, whole.data)
    assert not (tmp_path / "parts/state.pt").exists()


def test_the_result_says_what_was_done(colours: Path, tmp_path: Path, nano: Scale) -> None:
    write_tar(colours / "00002.tar", [("x", {"jpg": b"broken", "txt": b"red"})])
    records = list[dict[str, Any]]()
    result = train(str(colours), tmp_path / "out", scale=nano, seed=5, samples_seen=165, progress=records.append)
    assert (result.steps, result.samples_seen, result.unique_samples, result.repeats) == (10, 160, 40, 4.0)
    assert (result.seed, result.skipped, result.device) == (5, {"undecodable image": 1}, "cpu")
    assert result.scale == dataclasses.replace(nano, samples_seen=165).as_dict()
    assert json.loads((tmp_path / "out/train.json").read_text()) == dataclasses.asdict(result)
    assert [record["step"] for record in records] == [3, 6, 9, 10]
    assert records == [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert records[-1]["samples_seen"] == 160
    assert result.loss == records[-1]["loss"]  # the last tenth of ten steps is one
    assert 0 < result.data_wait < 1
    assert result.samples_per_second > 0


def test_a_finished_training_is_returned_at_once(colours: Path, tmp_path: Path, nano: Scale) -> None:
    first = train(colours, tmp_path / "out", scale=nano)
    again = train(colours, tmp_path / "out", scale=nano, progress=killed_at(0))
    assert again == first
    with pytest.raises(Killed):
        train(colours, tmp_path / "out", scale=nano, progress=killed_at(0), resume=False)
    assert not (tmp_path / "out/train.json").exists()


def test_another_request_in_the_same_folder_is_refused(colours: Path, tmp_path: Path, nano: Scale) -> None:
    train(colours, tmp_path / "out", scale=nano)
    with pytest.raises(ValueError, match=r"^out: .*another training: seed \(0 there, 1 now\)"):
        train(colours, tmp_path / "out", scale=nano, seed=1)
    with pytest.raises(ValueError, match=r"scale.lr \(0.002 there, 0.001 now\), scale.model.vision_cfg.width"):
        model = json.loads(json.dumps(nano.model))
        model["vision_cfg"]["width"] = 16
        train(colours, tmp_path / "out", scale=dataclasses.replace(nano, lr=1e-3, model=model))
    write_tar(colours / "00001.tar", colour_samples(16, start=25))
    with pytest.raises(ValueError, match=r"another training: data \("):
        train(colours, tmp_path / "out", scale=nano)


def test_it_learns(colours: Path, tmp_path: Path, nano: Scale) -> None:
    scale = dataclasses.replace(nano, samples_seen=16 * 60)
    train(colours, tmp_path / "out", scale=scale)
    curve = losses(tmp_path / "out")
    assert curve[0] > 2.6  # log(16) is 2.77
    assert sum(curve[-5:]) / 5 < 2.2  # eight distinct captions for sixteen images: about log 2 at best


def test_bf16_and_a_stream(colours: Path, tmp_path: Path, nano: Scale) -> None:
    scale = dataclasses.replace(nano, precision="bf16", cache_bytes=0)
    result = train(colours, tmp_path / "out", scale=scale)
    assert (result.unique_samples, result.repeats) == (40, 4.8)


def test_a_diverging_training_stops(colours: Path, tmp_path: Path, nano: Scale) -> None:
    with pytest.raises(FloatingPointError, match="the loss is nan at step"):
        train(colours, tmp_path / "out", scale=dataclasses.replace(nano, lr=1e38))


def test_the_rate_warms_up_and_falls_to_nothing(nano: Scale) -> None:
    rates = [learning_rate(step, dataclasses.replace(nano, lr=1.0)) for step in range(12)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[7] == pytest.approx(0.5)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0 < rates[-1] < 0.05
    short = dataclasses.replace(nano, lr=1.0, warmup=500, samples_seen=16 * 10)
    assert [learning_rate(step, short) for step in range(3)] == [0.5, 1.0, 1.0]  # a fifth of ten steps


def test_scales_are_datacomps() -> None:
    facts = {
        name: (s.model, s.samples_seen, s.batch_size, s.lr, s.warmup, s.beta2, s.image_size)
        for name, s in SCALES.items()
        if name != "tiny"
    }
    assert facts == {
        "small": ("ViT-B-32", 12_800_000, 4096, 5e-4, 500, 0.98, 224),
        "medium": ("ViT-B-32", 128_000_000, 4096, 5e-4, 500, 0.98, 224),
        "large": ("ViT-B-16", 1_280_000_000, 8192, 5e-4, 500, 0.98, 224),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"samples_seen": 15}, "less than a batch"),
        ({"save_steps": 0}, "save_steps"),
    ],
)
def test_wrong_scales_are_refused(nano: Scale, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(nano, **change)


def test_an_unknown_scale_or_model_is_refused(colours: Path, tmp_path: Path, nano: Scale) -> None:
    with pytest.raises(ValueError, match="'huge' is not one of tiny, small, medium, large"):
        get_scale("huge")
    with pytest.raises(ValueError, match="open_clip has no model 'ViT-Z'"):
        train(colours, tmp_path / "out", scale=dataclasses.replace(nano, model="ViT-Z"))


def test_importing_the_package_is_cheap() -> None:
    import subprocess
    import sys

    code = "import sys, trainer, trainer.scales; sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
