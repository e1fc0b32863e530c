"""Recaptioning as the first stage of a recipe: the pool that its filters then see."""

from __future__ import annotations

import dataclasses

import pyarrow.compute as pc

from curate.curation import MANIFEST, Progress, Stage, measure, run_stage
from curate.engines import Engine
from curate.features.index import Index
from curate.global_features import split_features
from curate.measure import ShardTask, cached, shard_tasks, sidecar, write_sidecar
from curate.pool import Pool, open_pool
from curate.recaption.run import recaption_pool
from curate.recaption.write import out_names, read_captions
from curate.recipe import Recipe
from curate.storage import Folder
from curate.threads import threaded
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
    made = dataclasses.replace(open_pool(f"{folder.url}/{SHARDS}"), recaption=facts)
    carry_over(pool, made, recipe, folder, engine, progress)
    return made


def carry_over(
    pool: Pool, made: Pool, recipe: Recipe, folder: Folder, engine: Engine, progress: Progress | None = None
) -> None:
    """Give the new pool what its recipe measures of images alone, from the old one's cache: they are the same images.

    So recipes that differ in their captions decode an image once. Shards where a sample got its first caption are
    left out: it was unreadable before.
    """
    plain, _ = split_features(recipe.features)
    wanted = [f for f in plain if not isinstance(f, Index) and "text" not in f.needs and not f.stands_in]
    after = {task.shard.name: task for task in shard_tasks(made, wanted)}
    after = {name: task for name, task in after.items() if any(cached(task, f) is None for f, _ in task.features)}
    if not wanted or not after:
        return
    images_alone = dataclasses.replace(recipe, features=(Index(), *wanted), filters=(), recaption=None)
    before = measure(pool, images_alone, engine, progress)
    names = {old: new.removeprefix(f"{SHARDS}/") for old, new in out_names([s.name for s in pool.shards]).items()}
    shards = folder.read_json(MANIFEST)["shards"]
    digests = {shard["name"].removeprefix(f"{SHARDS}/"): shard["digest"] for shard in shards}
    first = _first_captions(folder)
    pairs = [(old, after[names[old.shard.name]]) for old in before.tasks
             if names[old.shard.name] in after and old.shard.name not in first]  # fmt: skip
    for _ in threaded(lambda pair: _carry(*pair, digests[pair[1].shard.name]), pairs):
        pass


def _carry(old: ShardTask, new: ShardTask, digest: str) -> None:
    for name, feature in new.features:
        with old.cache.parquet(sidecar(name, old.shard.name)) as file:
            table = file.read()
        write_sidecar(new, name, feature, table.to_batches(), digest)


def _first_captions(folder: Folder) -> set[str]:
    """The shards with a sample that had no caption."""
    table = read_captions(folder)
    mine = pc.and_(pc.less(table["number"], 0), table["caption"].is_null())
    return set(table["shard"].filter(mine).unique().to_pylist())
