"""Optional packages: imported where they are used, and a clear line where one is missing."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from curate.errors import RequestError
from curate.hashing import file_sha256


@cache
def package_digest(package: str, patterns: tuple[str, ...], feature: str, remedy: str) -> str:
    """SHA-256 over files that an optional package carries, such as its model weights; none of its code is run.

    Raises:
        RequestError: it is not installed; says which feature needs it, and what to do.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise RequestError(f"features.{feature}: needs the package {package}; {remedy}")
    folder = Path(spec.origin).parent
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    return hashlib.sha256("".join(file_sha256(file) for file in files).encode()).hexdigest()


def function_at(path: str, field: str) -> Callable[..., Any]:
    """A user's own function by import path, `my_package.module:function`; the working folder is searched too.

    Raises:
        RequestError: there is none; names the `field` that asked for it.
    """
    module, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), name, None) if name else None
    except ImportError as error:
        raise RequestError(f"{field}: {path} cannot be imported: {error}") from error
    if not callable(found):
        raise RequestError(f"{field}: {path!r} names no function; write it as module:function")
    return found


def function_digest(path: str, field: str) -> str:
    """SHA-256 of the file that holds a user's own function, so that other code gives other columns."""
    return file_sha256(inspect.getfile(function_at(path, field)))
