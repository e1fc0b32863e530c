"""One process or many: what torchrun's environment says, and the few collective calls that training needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class World:
    """This process's place: `rank` of `size` processes, computing on `device`."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in rank order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


@contextmanager
def open_world(device: str | None) -> Iterator[World]:
    """Joins torchrun's processes, if any; the default device is the GPU of this process, if it has one."""
    rank, size, local = (
        int(os.environ.get(name, d)) for name, d in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    )
    chosen = torch.device(device or (f"cuda:{local}" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    started = size > 1 and not dist.is_initialized()
    if started:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(rank, size, chosen)
    finally:
        if started:
            dist.destroy_process_group()
