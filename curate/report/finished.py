"""Opens a finished dataset and the pool it was made from."""

from __future__ import annotations

from typing import Any

from curate.errors import RequestError
from curate.pool import Pool, open_pool
from curate.storage import Folder

MANIFEST = "manifest.json"


def open_finished(out: str) -> tuple[Folder, dict[str, Any]]:
    """The folder and manifest of a dataset that `curate filter` finished.

    Raises:
        RequestError: there is none at `out`.
    """
    folder = Folder(out)
    if not folder.exists(MANIFEST):
        raise RequestError(f"OUT: {out} holds no {MANIFEST}; give the OUT of a finished `curate filter`")
    try:
        manifest = folder.read_json(MANIFEST)
    except ValueError as error:
        raise RequestError(f"OUT: {out}/{MANIFEST} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or "funnel" not in manifest:
        raise RequestError(f"OUT: {out}/{MANIFEST} is not the manifest of a curated dataset")
    return folder, manifest


def pool_of(manifest: dict[str, Any], pool: str | None = None, cache: str | None = None) -> Pool:
    """The pool that a manifest names, or the one given instead; one that is gone is an empty pool.

    Raises:
        RequestError: a pool was given, and is none.
    """
    url = manifest["pool"]["url"]
    if pool is not None:
        return open_pool(pool, cache)
    try:
        return open_pool(url, cache)
    except (RequestError, OSError):  # moved or deleted since: what needs it is left out
        folder = Folder(url)
        return Pool(folder, Folder(cache) if cache else folder / "_features", ())
