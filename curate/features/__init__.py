"""Features: one file each. A feature is found by its file's name; nothing registers itself."""

from __future__ import annotations

import pkgutil
from functools import cache

from curate.features.contract import Feature
from curate.plugins import find_class

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
    found: type[Feature] = find_class(name, __name__, builtin_names(), Feature, "features")
    return found


@cache
def column_owners() -> dict[str, str]:
    """Which built-in feature measures a column, with its own parameters: column name to feature name."""
    owners: dict[str, str] = {}
    for name in builtin_names():
        if not feature_class(name).stands_in:
            owners |= dict.fromkeys(feature_class(name)().columns(), name)
    return owners
