"""Subcommands: one file each. They put curate, flows and trainer together, which do not know each other."""

from __future__ import annotations

from curate.engines import Engine
from curate.pool import Pool
from curate.recipe import Recipe


def with_scorer(recipe: Recipe, pool: Pool, engine: Engine) -> Recipe:
    """The recipe, with a scorer trained if it has the feature `bootstrap` and names none."""
    if not any(feature.name == "bootstrap" for feature in recipe.features):
        return recipe
    from flows.bootstrap import with_scorer  # loads torch

    return with_scorer(recipe, pool, engine)
