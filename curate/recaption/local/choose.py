"""Which token comes next: the likeliest, or one drawn by random numbers that belong to the request."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from curate.recaption.contract import Request


def uniforms(requests: Sequence[Request], count: int) -> np.ndarray:
    """`count` numbers in 0..1 for each request, its own whatever else is in the batch: float64 (requests, count)."""
    return np.stack([np.random.default_rng(_seed(request)).random(count) for request in requests])


def _seed(request: Request) -> int:
    facts = f"{request.uid}\0{request.number}\0{request.seed}\0{request.prompt}"
    return int.from_bytes(hashlib.sha256(facts.encode("utf-8", "surrogatepass")).digest()[:16], "big")


def choose(logits: Any, drawn: Any, temperature: float, top_p: float) -> Any:
    """The next token of each row: int64 (rows,).

    Args:
        logits: float (rows, vocabulary).
        drawn: float (rows,) in 0..1, which token to take of those that are likely enough; unused at temperature 0.
        temperature: 0 takes the likeliest token.
        top_p: only the likeliest tokens that together have this probability are drawn from (Holtzman et al. 2020, "The
            curious case of neural text degeneration", arXiv:1904.09751).
    """
    import torch

    if temperature == 0:
        return logits.argmax(1)
    shares, order = (logits.double() / temperature).softmax(1).sort(dim=1, descending=True, stable=True)
    before = shares.cumsum(1) - shares
    kept = torch.where(before < top_p, shares, 0.0).cumsum(1)  # the first is always among them
    place = torch.searchsorted(kept, (drawn.double() * kept[:, -1])[:, None], right=True)
    last = (before < top_p).sum(1, keepdim=True) - 1
    return order.gather(1, place.minimum(last))[:, 0]
