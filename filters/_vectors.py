"""Unit vectors: from Arrow columns, and their nearest neighbours, the same with any number of threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

BLOCK = 1024
"""Queries in one search. Always full, so that a query's sums do not depend on its neighbours or on their number."""


def matrix(column: pa.Array | pa.ChunkedArray, kind: type = np.float32) -> np.ndarray:
    """A column of equally long lists without nulls as an array (n, d) of `kind`."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = whole.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat.reshape(len(whole), -1) if len(whole) else flat.reshape(0, 0), kind)


def unit(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column of embeddings without nulls as float32 (n, d), each of unit length again: halves round it off."""
    return normalized(matrix(column))


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, d) at unit length, float32; one of zeros stays."""
    wide = vectors.astype(np.float32)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(length > 0, length, 1)


def log_mean_exp(values: np.ndarray) -> np.ndarray:
    """The logarithm of the mean of exp(values) in each row: (n, m) to (n,)."""
    most = values.max(axis=1)
    return most + np.log(np.exp(values - most[:, None]).mean(axis=1))


def nearest(queries: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row of `base` (m, d), m > 0, with the largest dot product for each of `queries` (n, d), both float32.

    Returns the product, float32 (n,), and the row, int64 (n,), the first of equal ones. Exact, by FAISS, on all GPUs
    if there are any.
    """
    import faiss

    index: Any = faiss.IndexFlatIP(base.shape[1])
    index.add(np.ascontiguousarray(base, np.float32))
    product, row = np.empty(len(queries), np.float32), np.empty(len(queries), np.int64)
    gpus = faiss.get_num_gpus()
    if gpus:
        index = faiss.index_cpu_to_all_gpus(index)
    block = BLOCK * 32 if gpus else BLOCK

    def search(start: int) -> None:
        stop = min(start + block, len(queries))
        full = np.zeros((block, base.shape[1]), np.float32)
        full[: stop - start] = queries[start:stop]
        faiss.omp_set_num_threads(1)  # of this thread: sums in one order
        found, place = index.search(full, 1)
        product[start:stop], row[start:stop] = found[: stop - start, 0], place[: stop - start, 0]

    threads = 1 if gpus else faiss.omp_get_max_threads()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(search, range(0, len(queries), block)))
    return product, row
