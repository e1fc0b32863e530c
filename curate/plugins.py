"""Filters and features by name: a file of the package, or a user's own class by import path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.errors import RequestError


def find_class(name: str, package: str, names: Sequence[str], base: type, field: str) -> Any:
    """The class of `name`, a subclass of `base`: `phash` is `Phash` in `package.phash`; else `module:Class`.

    The working folder is searched for a user's module too.

    Raises:
        RequestError: there is none of that name; names the `field` that asked for it.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
    elif name in names:
        module, attribute = f"{package}.{name}", "".join(part.title() for part in name.split("_"))
    else:
        raise RequestError(f"{field}: no {base.__name__.lower()} {name!r}; there are {', '.join(names)}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise RequestError(f"{field}: {name} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise RequestError(f"{field}: {name} names no {base.__name__} class")
    return found
