"""Artifacts: the arrays that a global feature was fitted to, kept in the cache as `.npz` and known by their digest."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from curate.errors import RequestError
from curate.storage import Folder

ARTIFACTS = "_artifacts"
Artifact = dict[str, np.ndarray]
log = logging.getLogger(__name__)


def artifact_digest(artifact: Artifact) -> str:
    """SHA-256 over the arrays: their names, types, shapes and values.

    >>> artifact_digest({"a": np.zeros(2)}) == artifact_digest({"a": np.zeros(2, np.float32)})
    False
    """
    digest = hashlib.sha256()
    for name in sorted(artifact):
        values = np.ascontiguousarray(artifact[name])
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def save_artifact(cache: Folder, name: str, artifact: Artifact) -> None:
    """Write an artifact to the cache, whole or not at all."""
    with cache.writing(name) as part, Path(part).open("wb") as file:
        arrays: dict[str, Any] = dict(artifact)
        np.savez(file, **arrays)


def load_artifact(cache: Folder, name: str) -> Artifact | None:
    """Read an artifact from the cache; None if it is not there, or damaged."""
    if not cache.exists(name):
        return None
    try:
        with cache.local_copy(name) as path:
            return _read(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        log.warning("%s is damaged and will be fitted again", cache.path(name))
        return None


def read_artifact(path: str, field: str) -> Artifact:
    """Read an artifact that a recipe names.

    Raises:
        RequestError: there is none at `path`; names the `field`.
    """
    try:
        return _read(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RequestError(f"{field}: {path} is no .npz of plain arrays, as _features/_artifacts holds them") from error


def _read(path: str) -> Artifact:
    with np.load(path, allow_pickle=False) as arrays:
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        return {name: arrays[name] for name in arrays.files}
