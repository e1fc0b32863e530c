"""Gradients of micro-batches equal those of the whole batch; FLOPs are those that can be counted by hand."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from trainer.distributed import World
from trainer.family import Family, Outputs, get_family
from trainer.mfu import flops_per_sample, peak_flops
from trainer.scales import Scale
from trainer.step import backward
from trainer.train import train

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
CAPTIONS = ["red", "a photo of something green", "all of it is blue", "yellow and red", "two stars", "a", "b c", "left"]


def without_batch_norm(scale: Scale) -> Scale:
    """Its statistics would be a micro-batch's; a transformer has none."""
    model = json.loads(json.dumps(scale.model))
    model["vision_cfg"] = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
    return dataclasses.replace(scale, model=model)


def gradients(family: Family, scale: Scale, parts: int) -> tuple[float, dict[str, torch.Tensor]]:
    scale = family.configure(without_batch_norm(scale))
    model = family.build(scale, 0, CPU)
    torch.manual_seed(1)
    images, tokens = torch.randn(8, 3, 32, 32), family.tokenizer(scale)(CAPTIONS)
    loss, _ = backward(model, family, images, tokens, ALONE, parts, contextlib.nullcontext())
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "family",
    ["clip", "siglip", "coca", "llip", {"name": "clip", "hard_negatives": True}],
    ids=["clip", "siglip", "coca", "llip", "hard negatives"],
)
@pytest.mark.parametrize("parts", [2, 8])
def test_a_contrastive_loss_of_micro_batches_has_the_gradient_of_the_batch(
    nano: Scale, family: Any, parts: int
) -> None:
    family = get_family(family)
    loss, whole = gradients(family, nano, 1)
    loss_of_parts, of_parts = gradients(family, nano, parts)
    assert loss_of_parts == pytest.approx(loss, rel=1e-5)
    assert whole.keys() == of_parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(of_parts[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


@dataclasses.dataclass(frozen=True)
class Squares(Family):
    """A loss that is a mean over samples, and a model with dropout."""

    name: ClassVar = "squares"
    contrastive: ClassVar = False

    def tokenizer(self, scale: Scale) -> Any:
        return lambda texts: torch.ones(len(texts), 1, dtype=torch.long)

    def build(self, scale: Scale, seed: int, device: torch.device) -> torch.nn.Module:
        torch.manual_seed(seed)
        return Line()

    def loss(self, outputs: Outputs, tokens: torch.Tensor, world: World) -> torch.Tensor:
        return outputs["y"].square().mean()

    def save(self, model: torch.nn.Module, scale: Scale, folder: Path) -> None: ...

    def load(self, folder: Path, device: torch.device) -> Any: ...


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(12, 5)
        self.dropout = torch.nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> Outputs:
        self.calls += 1
        return {"y": self.dropout(self.line(images.flatten(1)))}


@dataclasses.dataclass(frozen=True)
class Compared(Squares):
    contrastive: ClassVar = True


def test_a_mean_over_samples_is_the_mean_of_its_parts() -> None:
    model = Squares().build(None, 0, CPU).eval()  # type: ignore[arg-type]
    images, tokens = torch.randn(8, 3, 2, 2), torch.ones(8, 1)
    (whole, _), expected = backward(model, Squares(), images, tokens, ALONE, 1, contextlib.nullcontext()), {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        expected[name], parameter.grad = parameter.grad, None
    (parts, _) = backward(model, Squares(), images, tokens, ALONE, 4, contextlib.nullcontext())
    assert parts.item() == pytest.approx(whole.item())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_what_is_computed_again_has_the_same_random_numbers() -> None:
    # With other dropout masks the second time, the gradient would not be that of the loss that is given.
    model: Any = Compared().build(None, 0, CPU)  # type: ignore[arg-type]
    images, tokens = torch.randn(8, 3, 2, 2), torch.ones(8, 1)
    torch.manual_seed(5)
    backward(model, Compared(), images, tokens, ALONE, 2, contextlib.nullcontext())
    cached, after = model.line.weight.grad.clone(), torch.rand(1)
    model.zero_grad()
    torch.manual_seed(5)
    torch.cat([model(part, None)["y"] for part in images.chunk(2)]).square().mean().backward()
    torch.testing.assert_close(cached, model.line.weight.grad)
    assert after == torch.rand(1)


def test_counting_flops_leaves_no_trace() -> None:
    model: Any = Squares().build(None, 0, CPU)  # type: ignore[arg-type]
    torch.manual_seed(3)
    flops = flops_per_sample(model, Squares(), torch.randn(20, 3, 2, 2), torch.ones(20, 1), contextlib.nullcontext())
    assert flops == 2 * 12 * 5 * 2  # forward, and backward to the weights; the images need no gradient
    assert model.line.weight.grad is None
    assert model.calls == 0
    rest = torch.rand(1)
    torch.manual_seed(3)
    torch.randn(20, 3, 2, 2)
    assert rest == torch.rand(1)


def test_the_flops_of_a_transformer_are_six_times_its_weights_per_token(nano: Scale) -> None:
    model = {
        "embed_dim": 16,
        "vision_cfg": {"patch_size": 4, "width": 128, "layers": 4, "head_width": 64},
        "text_cfg": {"context_length": 4, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
        "custom_text": True,
    }
    family, scale = get_family("clip"), dataclasses.replace(nano, model=model, grad_checkpointing=True)
    network: Any = family.build(scale, 0, CPU)
    images, tokens = torch.randn(8, 3, 32, 32), family.tokenizer(scale)(["red"] * 8)
    flops = flops_per_sample(network, family, images, tokens, contextlib.nullcontext())
    weights = sum(p.numel() for p in network.visual.transformer.parameters() if p.ndim == 2)
    attention = 4 * 2 * 65 * 65 * 128 * 2 * 3  # layers, two products, forward and twice backward
    assert flops == pytest.approx(6 * 65 * weights + attention, rel=0.1)  # checkpointing does not count
    assert network.visual.transformer.grad_checkpointing


def test_an_unknown_device_has_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_flops(CPU, "bf16") is None
    names = iter(["NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "Quadro"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: next(names))
    gpu = torch.device("cuda:0")
    assert peak_flops(gpu, "fp32") is None
    assert [peak_flops(gpu, "bf16") for _ in range(3)] == [989e12, 756e12, None]


def test_a_training_in_micro_batches_is_the_same(colours: Path, tmp_path: Path, nano: Scale) -> None:
    scale = dataclasses.replace(without_batch_norm(nano), augment="none")
    whole = train(colours, tmp_path / "whole", scale=scale)
    parts = train(colours, tmp_path / "parts", scale=dataclasses.replace(scale, accumulate=4))
    assert parts.loss == pytest.approx(whole.loss, abs=1e-3)
    assert whole.mfu is None
    assert whole.flops_per_sample == pytest.approx(parts.flops_per_sample)
    with pytest.raises(ValueError, match=r"batch_size 16 does not divide by 1 processes x 3 parts"):
        train(colours, tmp_path / "no", scale=dataclasses.replace(scale, accumulate=3))
