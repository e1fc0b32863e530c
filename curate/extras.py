"""Optional packages: imported where they are used, and a clear line where one is missing."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from curate.errors import RequestError
from curate.hashing import file_sha256


def package_files(package: str, patterns: tuple[str, ...], extra: str, feature: str) -> list[Path]:
    """Files that an optional package carries, sorted; nothing of the package is run.

    Raises:
        RequestError: it is not installed; says which feature needs it, and the extra that brings it.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise RequestError(f"features.{feature}: needs the package {package}; install curate with its extra [{extra}]")
    folder = Path(spec.origin).parent
    return sorted(file for pattern in patterns for file in folder.glob(pattern))


@cache
def package_digest(package: str, patterns: tuple[str, ...], extra: str, feature: str) -> str:
    """SHA-256 over files of an optional package, such as its model weights; see `package_files`."""
    files = package_files(package, patterns, extra, feature)
    return hashlib.sha256("".join(file_sha256(file) for file in files).encode()).hexdigest()


def function_at(path: str, field: str) -> Callable[..., Any]:
    """A user's own function by import path, `my_package.module:function`.

    Raises:
        RequestError: there is none; names the `field` that asked for it.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None) if name else None
    except ImportError as error:
        raise RequestError(f"{field}: {path} cannot be imported: {error}") from error
    if not callable(found):
        raise RequestError(f"{field}: {path!r} names no function; write it as module:function")
    return found
