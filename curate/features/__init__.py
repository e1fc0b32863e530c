"""Features: one file each. A feature is found by its file's name; nothing registers itself."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

from curate.errors import RequestError
from curate.features.contract import Feature

_SUPPORT = {"batch", "contract"}


def builtin_names() -> list[str]:
    """The features that come with curate, by name."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if name not in _SUPPORT)


def feature_class(name: str) -> type[Feature]:
    """The class of a built-in feature (`phash`) or of a user's own by import path (`my_package.logos:Logo`).

    Raises:
        RequestError: there is none of that name.
    """
    if ":" not in name:
        if name not in builtin_names():
            raise RequestError(f"features: no feature {name!r}; there are {', '.join(builtin_names())}")
        module, attribute = f"{__name__}.{name}", "".join(part.title() for part in name.split("_"))
    else:
        module, _, attribute = name.partition(":")
    found: type[Feature] = import_class(module, attribute, Feature, name, "features")
    return found


def import_class(module: str, attribute: str, base: type, name: str, field: str) -> Any:
    """Import `module:attribute`, a subclass of `base`; the working folder is searched too."""
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


@cache
def column_owners() -> dict[str, str]:
    """Which built-in feature measures a column: column name to feature name."""
    owners = {}
    for name in builtin_names():
        for column in feature_class(name).columns():
            owners[column] = name
    return owners
