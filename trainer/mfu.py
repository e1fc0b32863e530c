"""Model FLOPs utilisation: the share of a device's peak that a training's useful arithmetic reaches.

Chowdhery et al. 2022, "PaLM", arXiv:2204.02311, appendix B: what is computed again to save memory does not count.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from trainer.distributed import World
from trainer.family import Family
from trainer.step import Autocast

SAMPLES = 8  # that are counted

# Peak FLOP/s in bf16 without sparsity, from the makers' data sheets; the first name that the device's holds counts.
PEAKS: dict[str, float] = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
}


def peak_flops(device: torch.device, precision: str) -> float | None:
    """FLOP/s that the device can do at most, None where it is not known: on a CPU, in fp32, on another GPU."""
    if device.type != "cuda" or precision != "bf16":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in PEAKS.items() if known in name), None)


def flops_per_sample(
    model: Any, family: Family, images: torch.Tensor, tokens: torch.Tensor, autocast: Autocast
) -> float:
    """What the first few samples of a batch cost, forward and backward, each; it changes nothing of the training.

    A contrastive loss itself, whose cost per sample grows with the batch, counts as that of a small batch; it is a
    thousandth of a large model's.
    """
    images, tokens = images[:SAMPLES], tokens[:SAMPLES]
    device, repeats = images.device, hasattr(model, "set_grad_checkpointing")
    # The same weights as other leaves, and buffers of their own: no gradient stays behind, and DDP takes no notice.
    weights = {name: value.detach().requires_grad_(value.requires_grad) for name, value in model.named_parameters()}
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    if repeats:
        before = any(getattr(module, "grad_checkpointing", False) for module in model.modules())
        model.set_grad_checkpointing(False)
    counter = FlopCounterMode(display=False)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), counter:
        with autocast:
            outputs = torch.func.functional_call(model, weights | buffers, (images, tokens))
        family.loss(outputs, tokens, World(0, 1, device)).backward()
    if repeats:
        model.set_grad_checkpointing(before)
    return counter.get_total_flops() / len(images)
