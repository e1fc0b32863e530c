"""Recaptioning as the first stage of a recipe: the pool that its filters then see."""

from __future__ import annotations

import dataclasses

from curate.curation import Progress, Stage, run_stage
from curate.engines import Engine
from curate.pool import Pool, open_pool
from curate.recaption.run import recaption_pool
from curate.recipe import Recipe
from curate.write import SHARDS

RECAPTIONED = "_recaptioned"


def recaptioned(
    pool: Pool, recipe: Recipe, engine: Engine, progress: Progress | None = None, stage: Stage = run_stage
) -> Pool:
    """The pool that a recipe's filters see: with new captions, where it has `recaption`, else the pool itself.

    It lies in the pool's cache under the settings' hash: all recipes with the same `recaption` share it, and what is
    measured of it. Those whose settings differ in candidates, checks or mix share what the backend wrote.
    """
    if recipe.recaption is None or pool.recaption is not None:
        return pool
    folder = pool.cache / f"{RECAPTIONED}/{recipe.recaption.hash}"
    manifest = recaption_pool(pool, recipe.recaption, folder, engine, overwrite=True, progress=progress, stage=stage)
    facts = {"pool": pool.folder.url, "folder": folder.url, "settings_hash": manifest["settings_hash"],
             "counts": manifest["counts"]}  # fmt: skip
    return dataclasses.replace(open_pool(f"{folder.url}/{SHARDS}"), recaption=facts)
