"""Heads on embeddings: a few linear layers, read from a file, run, or trained from labelled samples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.errors import RequestError

Layers = Sequence[tuple[np.ndarray, np.ndarray]]
"""Weights, float64 (out, in), and biases, float64 (out,), in the order they are applied; the last gives one number."""


def read_layers(file: str, field: str) -> Layers:
    """The layers of a head in a file of safetensors, NumPy (.npz) or PyTorch; nothing in it is run.

    Layers are told by their names (`layers.0.weight`, `layers.0.bias`), in the order of the numbers in them, and a
    bias that is not there is zero.

    Raises:
        RequestError: it cannot be read or holds no such layers; names the `field` that asked for it.
    """
    if not Path(file).is_file():
        raise RequestError(f"{field}: no file {file!r}")
    try:
        return arranged(_arrays(Path(file)))
    except Exception as error:  # a broken file may raise anything
        raise RequestError(f"{field}: {file} is no head: {' '.join(str(error).split())[:200]}") from error


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return load_file(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin"):
        import torch

        found: Any = torch.load(path, map_location="cpu", weights_only=True)
        found = found.get("state_dict", found)
        return {name: value.float().numpy() for name, value in found.items() if hasattr(value, "numpy")}
    raise ValueError("give a file that ends in .safetensors, .npz, .pt, .pth, .ckpt or .bin")


def arranged(arrays: Mapping[str, np.ndarray]) -> Layers:
    """The layers among some named arrays, checked to fit each other.

    >>> [weight.shape for weight, _ in arranged({"10.weight": np.ones((1, 3)), "9.weight": np.ones((3, 8))})]
    [(3, 8), (1, 3)]
    """
    weights = {name: np.asarray(value, np.float64) for name, value in arrays.items() if name.split(".")[-1] == "weight"}
    layers: list[tuple[np.ndarray, np.ndarray]] = []
    for name in sorted(weights, key=_numbers):
        weight = np.atleast_2d(weights[name])
        bias = np.atleast_1d(np.asarray(arrays.get(f"{name.removesuffix('weight')}bias", np.zeros(len(weight)))))
        if weight.ndim != 2 or bias.shape != (len(weight),):
            raise ValueError(f"{name} has the shape {weight.shape} and its bias {bias.shape}: no linear layer")
        if layers and weight.shape[1] != len(layers[-1][0]):
            raise ValueError(f"{name} takes {weight.shape[1]} numbers, and the layer before gives {len(layers[-1][0])}")
        layers.append((weight, bias.astype(np.float64)))
    if not layers:
        raise ValueError(
            f"no array is named weight or ends in .weight; there are {', '.join(sorted(arrays)) or 'none'}"
        )
    if len(layers[-1][0]) != 1:
        raise ValueError(f"its last layer gives {len(layers[-1][0])} numbers, not one")
    if not all(np.isfinite(values).all() for layer in layers for values in layer):
        raise ValueError("it holds numbers that are not finite")
    return layers


def embeddings(column: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """A column of vectors as float32 (n, size), zeros where there is none, and which there are (n,)."""
    vectors = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    real = vectors.is_valid().to_numpy(zero_copy_only=False)
    found = np.zeros((len(vectors), vectors.type.list_size), np.float32)
    found[real] = vectors.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, found.shape[1])
    return found, real


def run_layers(layers: Layers, vectors: np.ndarray, relu: bool) -> np.ndarray:
    """A head's output for some vectors, float (n, size): float64 (n,), with or without ReLU between its layers."""
    values = vectors.astype(np.float64)
    for n, (weight, bias) in enumerate(layers):
        values = values @ weight.T + bias
        if relu and n < len(layers) - 1:
            values = np.maximum(values, 0)
    return values[:, 0]


def _numbers(name: str) -> list[int | str]:
    """To sort names as people do: `layers.10` after `layers.9`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def train_head(vectors: np.ndarray, labels: np.ndarray, path: Path, strength: float = 1.0) -> None:
    """Train a linear head by logistic regression and write it as safetensors; its output is a log odds.

    `vectors`: unit length, float (n, size); `labels`: bool (n,). Both kinds count the same, however many there
    are. `strength` is that of the penalty on the weights.
    """
    from safetensors.numpy import save_file
    from scipy.optimize import minimize
    from scipy.special import expit

    x, y = vectors.astype(np.float64), np.where(labels, 1.0, -1.0)
    if len(np.unique(y)) < 2:
        raise ValueError("give samples of both kinds")
    share = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = parameters[:-1], parameters[-1]
        margin = y * (x @ weight + bias)
        pull = -share * y * expit(-margin)
        penalty = strength / len(x) / 2
        gradient = np.append(x.T @ pull + 2 * penalty * weight, pull.sum())
        return float(share @ np.logaddexp(0, -margin) + penalty * weight @ weight), gradient

    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    save_file({"weight": found[None, :-1].astype(np.float32), "bias": found[-1:].astype(np.float32)}, path)
