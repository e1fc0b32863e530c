"""A scorer trained on the pool itself: each fold of the pool is judged by a model that has not seen it."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator, Mapping
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from curate.curation import curate_pool, measure
from curate.engines import Engine
from curate.errors import RequestError, WorkError
from curate.features.batch import Batch
from curate.features.bootstrap import SCORER, Bootstrap, part_name, write_reference
from curate.features.contract import Feature, GlobalFeature
from curate.features.index import Index
from curate.hashing import facts_hash
from curate.measure import BATCH, batches
from curate.pool import Pool
from curate.recaption.stage import recaptioned
from curate.recipe import NamedFilter, Recipe, parse_recipe
from curate.shards import read_samples
from curate.storage import Folder
from trainer.scales import get_scale
from trainer.train import train

REFERENCES = 2048
"""Pairs that stand for all others when a score is normalised."""
REFERENCE_SHARDS = 32
STEPS = "steps"
SCORERS = "_scorers"
COLUMN = "bootstrap_score"
log = logging.getLogger(__name__)


def with_scorer(recipe: Recipe, pool: Pool, engine: Engine) -> Recipe:
    """The recipe as it is, or with a scorer trained where its `bootstrap` feature names none.

    The scorer is trained on what the filters before it keep, and kept in the pool's cache, so that the same
    pool and parameters train it once.
    """
    wanted = next((f for f in recipe.features if isinstance(f, Bootstrap)), None)
    if wanted is None or wanted.scorer is not None:
        return recipe
    pool = recaptioned(pool, recipe, engine)
    if not pool.cache.is_local:
        raise RequestError(
            "features.bootstrap.scorer: a scorer is trained on a local disk; give --cache FOLDER, or the folder that "
            "`curate bootstrap` wrote"
        )
    before = replace_filters(recipe, tuple(takewhile(lambda step: COLUMN not in step.filter.reads, recipe.filters)))
    facts = [wanted.model_dump(mode="json"), before.hash, measure(pool, before, engine).fingerprint]
    key = facts_hash(facts)
    scorer = bootstrap(pool, Path(pool.cache.path(f"{SCORERS}/{key}")), wanted, engine, before)
    ready = wanted.model_copy(update={"scorer": str(scorer)})
    return dataclasses.replace(recipe, features=tuple(ready if f is wanted else f for f in recipe.features))


def bootstrap(pool: Pool, out: Path, wanted: Bootstrap, engine: Engine, before: Recipe) -> Path:
    """Train the scorer that `wanted` describes in the folder `out`, which is returned.

    A killed run goes on where it was when it is called again; a finished one is returned at once.

    Args:
        before: what a sample must pass to be trained on: best the filters that come before the scorer's in the
            recipe that will use it.
    """
    if (out / SCORER).is_file():
        return out
    try:
        return _bootstrap(pool, out, wanted, engine, before)
    except ValueError as wrong:  # of the trainer: the scale, the shards
        raise RequestError(f"features.bootstrap: {wrong}") from wrong
    except FloatingPointError as failed:
        raise WorkError(f"features.bootstrap: {failed}") from failed


def _bootstrap(pool: Pool, out: Path, wanted: Bootstrap, engine: Engine, before: Recipe) -> Path:
    scale = dataclasses.replace(get_scale(wanted.scale), flip=True)  # a mirrored photo still fits its caption
    scale = dataclasses.replace(scale, samples_seen=wanted.samples_seen or scale.samples_seen * 3 // 2)
    if wanted.trusted is not None:
        model = out / STEPS / "trusted"
        train(wanted.trusted, model, scale=scale, seed=wanted.seed)
        return write_scorer(out, {0: model}, pool, 1)
    models: dict[int, Path] = {}
    trainings = wanted.folds * wanted.rounds
    for step in range(trainings):
        fold, work = step % wanted.folds, out / STEPS / str(step)
        log.info("bootstrap: training %d of %d, to judge fold %d of %d", step + 1, trainings, fold, wanted.folds)
        latest = write_scorer(work / "judges", models, pool, wanted.folds) if models else None
        recipe = training_recipe(before, wanted, fold, latest)
        curate_pool(pool, recipe, Folder(str(work / "dataset")), engine)
        train(str(work / "dataset" / "shards"), work / "model", scale=scale, seed=wanted.seed + step)
        models[fold] = work / "model"
    return write_scorer(out, models, pool, wanted.folds)


def training_recipe(before: Recipe, wanted: Bootstrap, fold: int, judges: Path | None) -> Recipe:
    """What the model that will judge a fold is trained on: the pairs of the others that their judges like best."""
    steps: list[dict[str, Any]] = [{"fold": {"fold": fold, "folds": wanted.folds, "leave_out": True}}]
    features = {}
    if judges is not None:
        steps.append({"score": {"column": COLUMN, "keep_fraction": wanted.keep_fraction, "missing": "keep"}})
        features = {wanted.name: wanted.model_dump(mode="json") | {"scorer": str(judges)}}
    added = parse_recipe({"features": features, "filters": steps})
    both = dataclasses.replace(before, features=(*added.features, *before.features))
    return replace_filters(both, (*before.filters, *added.filters))


def replace_filters(recipe: Recipe, filters: tuple[NamedFilter, ...]) -> Recipe:
    """The recipe with other filters, which read what its features measure, and only the features they need."""
    known = {column: feature for feature in recipe.features for column in feature.columns()}
    wanted, found = [column for step in filters for column in step.filter.reads], dict[str, Feature]()
    while wanted:
        feature = known[wanted.pop()]
        if feature.name not in found and isinstance(feature, GlobalFeature):
            wanted.extend(feature.reads)
        found[feature.name] = feature
    others = (found[name] for name in sorted(found) if name != Index.name)
    return dataclasses.replace(recipe, features=(Index(), *others), filters=filters)


def write_scorer(out: Path, models: Mapping[int, Path], pool: Pool, folds: int) -> Path:
    """Gather the models by the fold that each judges, with their references; the sign that it is whole comes last."""
    for fold, model in models.items():
        write_reference(model / "checkpoint", _some_batches(pool))
        shutil.copytree(model / "checkpoint", out / part_name(fold), dirs_exist_ok=True)
    Folder(str(out)).write_json(SCORER, {"folds": folds})
    return out


def _some_batches(pool: Pool) -> Iterator[Batch]:
    """The first batches of some shards that lie evenly in the pool, as many pairs of each."""
    shards = pool.shards[:: -(-len(pool.shards) // REFERENCE_SHARDS)]
    share = -(-REFERENCES // len(shards))
    for shard in shards:
        with pool.folder.local_copy(shard.name) as path:
            yield from islice(batches(shard.name, read_samples(path)), -(-share // BATCH))
