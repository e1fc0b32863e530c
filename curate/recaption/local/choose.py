"""Which token comes next: the likeliest, or one drawn by random numbers that belong to the request."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from curate.recaption.contract import Request

_MOST = 256
"""So many tokens are looked at first, mostly all that are likely enough: to sort all takes longer than a small CoCa."""


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
    shares = (logits.float() / temperature).softmax(1)
    sorted_, order = shares.topk(min(_MOST, shares.shape[1]), dim=1)
    if bool((sorted_.double().sum(1) < top_p).any()):  # so flat that more are likely enough
        sorted_, order = shares.sort(dim=1, descending=True, stable=True)
    sums = sorted_.double().cumsum(1)
    likely = (sums - sorted_ < top_p).sum(1, keepdim=True)  # the first is always among them
    within = sums.gather(1, likely - 1)
    place = torch.searchsorted(sums, drawn.double()[:, None] * within, right=True)
    return order.gather(1, place.minimum(likely - 1))[:, 0]
