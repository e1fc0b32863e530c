"""The record of a run: `manifest.json`, whose presence says that a dataset is whole."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from curate import __version__
from curate.errors import WorkError
from curate.pool import Pool
from curate.recipe import Recipe
from curate.selection import Selection, selection_digest
from curate.storage import Folder
from curate.write import WrittenShard

if TYPE_CHECKING:
    from curate.curation import Measured

SELECTION = "selection.parquet"
LIBRARIES = ("duckdb", "faiss-cpu", "ibis-framework", "numpy", "open_clip_torch", "pillow", "pyarrow", "torch")


def make_manifest(
    pool: Pool,
    recipe: Recipe,
    out: Folder,
    measured: Measured,
    chosen: Selection,
    written: Sequence[WrittenShard],
    seconds: dict[str, float],
    warned: Sequence[str],
) -> dict[str, Any]:
    """The record of a run; checks that no sample was lost."""
    kept = chosen.kept if pool.metadata_only else sum(shard.samples for shard in written)
    if not measured.samples == chosen.samples or kept != chosen.kept:
        raise WorkError(
            f"counts do not add up: {measured.samples} measured, {chosen.samples} judged, {chosen.kept} kept, "
            f"{kept} written; the pool changed during the run, so run the command again"
        )
    with out.local_copy(SELECTION) as path:
        digest = selection_digest(path)
    return {
        "curate": __version__,
        "name": recipe.name,
        "description": recipe.description,
        "pool": {
            "url": pool.folder.url, "cache": pool.cache.url, "shards": len(pool.shards), "samples": measured.samples,
        },
        "recipe": recipe.as_dict(),
        "measure": measured.as_dict(),
        "fitted": measured.fitted,
        "funnel": [step.as_dict() for step in chosen.funnel],
        "selection": {"rows": chosen.samples, "kept": chosen.kept, "dropped": chosen.samples - chosen.kept,
                      "sha256": digest},
        "shards": [shard.as_dict() for shard in written],
        "warnings": [*warned],
        "seconds": seconds,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
    }  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ImportError:
        return None
