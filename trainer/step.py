"""The gradient of one step: of its whole batch at once, or part by part for less memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainer.distributed import World
from trainer.family import Family, Outputs

Autocast = AbstractContextManager[Any]


def backward(
    model: Any, family: Family, images: torch.Tensor, tokens: torch.Tensor, world: World, parts: int, autocast: Autocast
) -> tuple[torch.Tensor, Outputs]:
    """Adds the gradient of this process's batch to the parameters'; gives its loss and the model's outputs.

    Args:
        model: the family's, or what DDP and torch.compile make of it.
        parts: into how many micro-batches the batch is cut; it divides by them.
        autocast: the context in which the model computes; the loss is computed outside of it.
    """
    if parts == 1:
        return _of_one(model, family, images, tokens, world, 1, autocast)
    micro = list(zip(images.chunk(parts), tokens.chunk(parts), strict=True))
    if family.contrastive:
        return _of_cached(model, family, micro, tokens, world, autocast)
    total = torch.zeros((), device=images.device)
    outputs: Outputs = {}
    for place, (some_images, some_tokens) in enumerate(micro, 1):
        with _synced(model, place == parts):
            loss, outputs = _of_one(model, family, some_images, some_tokens, world, parts, autocast)
        total += loss
    return total, outputs


def _of_one(
    model: Any, family: Family, images: torch.Tensor, tokens: torch.Tensor, world: World, parts: int, autocast: Autocast
) -> tuple[torch.Tensor, Outputs]:
    """The share that one of `parts` equal micro-batches has in the mean."""
    with autocast:
        outputs = model(images, tokens)
    loss = family.loss(outputs, tokens, world)
    if parts > 1:
        loss = loss / parts
    loss.backward()
    return loss.detach(), outputs


def _of_cached(
    model: Any,
    family: Family,
    micro: list[tuple[torch.Tensor, torch.Tensor]],
    tokens: torch.Tensor,
    world: World,
    autocast: Autocast,
) -> tuple[torch.Tensor, Outputs]:
    """A loss that compares all samples of a batch, with only a micro-batch's activations in memory (Gao et al. 2021,
    "Scaling deep contrastive learning batch size under memory limited setup", arXiv:2101.06983).

    The outputs of all are computed without gradient; the loss of the whole batch gives the gradient of each output;
    then each micro-batch is computed again, with the same random numbers, and passes its outputs' gradients on. Equal
    to the gradient of the batch at once, but for batch norm, whose statistics are a micro-batch's.
    """
    device = tokens.device
    states, cached = [], list[Outputs]()
    with torch.no_grad(), autocast:
        for images, some in micro:
            states.append(random_state(device))
            cached.append(model(images, some))
    whole = {name: _joined([outputs[name] for outputs in cached]) for name in cached[0]}
    loss = family.loss(whole, tokens, world)
    loss.backward()
    for place, ((images, some), state) in enumerate(zip(micro, states, strict=True)):
        with _synced(model, place == len(micro) - 1), _replayed(state, device):
            with autocast:
                outputs = model(images, some)
            passed = [name for name, value in whole.items() if value.grad is not None and outputs[name].requires_grad]
            gradients = [_part(whole[name].grad, place, len(micro)) for name in passed]
            torch.autograd.backward([outputs[name] for name in passed], gradients)
    return loss.detach(), whole


def _joined(values: list[torch.Tensor]) -> torch.Tensor:
    """One output of all micro-batches as a leaf of its own; a single number is the same for all."""
    whole = values[0].detach().clone() if values[0].ndim == 0 else torch.cat(values)
    return whole.requires_grad_(whole.is_floating_point())


def _part(gradient: Any, place: int, parts: int) -> torch.Tensor:
    return gradient / parts if gradient.ndim == 0 else gradient.chunk(parts)[place]


def _synced(model: Any, last: bool) -> AbstractContextManager[Any]:
    """Under DDP, the processes exchange gradients once, after the last micro-batch."""
    return nullcontext() if last or not hasattr(model, "no_sync") else model.no_sync()


def attention(device: torch.device) -> AbstractContextManager[Any]:
    """How attention is computed meanwhile: on a CPU by plain matrix products, since torch's fused kernel takes several
    times as long on short sequences in bf16.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Where the random numbers of the CPU and of a GPU are."""
    state = {"rng": torch.get_rng_state()}
    return state | ({"cuda_rng": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Goes back to there; other entries of `state` are ignored, and so is a GPU's on another device."""
    torch.set_rng_state(state["rng"])
    if device.type == "cuda" and "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"], device)


@contextmanager
def _replayed(state: dict[str, torch.Tensor], device: torch.device) -> Iterator[None]:
    now = random_state(device)
    set_random_state(state, device)
    yield
    set_random_state(now, device)
