"""Functions that numba compiles: for the few loops over bytes that no library has.

They are compiled when they are first called, in some seconds, and kept on disk, beside the code or in the user's cache.
`function.py_func` is the same in plain Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np

Bytes = np.ndarray  # uint8 (bytes,)
Table = np.ndarray  # of integers
_F = TypeVar("_F", bound=Callable[..., Any])


@cache
def _folder() -> Path:
    """Where compiled code is kept: another place for other code, as numba sees no change in a function that is called
    from another file."""
    here = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    files = ("html_*.py", "json_tokens.py", "pairs_batch.py", "wat_links.py")
    for path in (path for pattern in files for path in sorted(here.glob(pattern))):
        digest.update(path.read_bytes())
    return here / "__pycache__" / digest.hexdigest()


def compiled(function: _F) -> _F:
    """The function, compiled. Index errors are not noticed: check places before they are used."""
    config: Any = numba.config
    before, config.CACHE_DIR = config.CACHE_DIR, config.CACHE_DIR or str(_folder())
    made: Any
    try:
        made = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder to keep it in
        made = numba.njit(nogil=True)(function)
    finally:
        config.CACHE_DIR = before
    return cast(_F, made)
