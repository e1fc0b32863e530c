"""Fit a recipe to a pool that has DataComp's metadata: columns that the metadata gives are not measured again."""

from __future__ import annotations

from dataclasses import replace

from curate.errors import RequestError
from curate.features.clip import Clip
from curate.features.contract import Feature
from curate.features.datacomp import Datacomp, Model
from curate.features.datacomp_vectors import DatacompVectors
from curate.features.index import Index
from curate.metadata.lookup import metadata_files
from curate.metadata.shards import npz_name
from curate.pool import Pool
from curate.recipe import Recipe
from curate.storage import Folder

MODELS: dict[tuple[str, str], Model] = {
    ("ViT-B-32", "openai"): "b32",
    ("ViT-B-32-quickgelu", "openai"): "b32",
    ("ViT-L-14", "openai"): "l14",
    ("ViT-L-14-quickgelu", "openai"): "l14",
}
"""The CLIP models that DataComp's metadata was scored with, as open_clip names them."""
SIZE = {"width", "height"}
SCORE = {"clip_score"}
VECTORS = {"clip_image", "clip_text"}


def fit_recipe(recipe: Recipe, pool: Pool) -> Recipe:
    """The recipe with the `datacomp` features in the place of those whose columns the metadata gives.

    In a pool that is metadata alone these are the size and the digest of the image, and the scores and
    embeddings of `clip` if it names a model of DataComp's. In a pool of tars they are the size and the
    scores, and only if the recipe has `datacomp: {metadata: FOLDER}`. Any other recipe stays as it is.

    Raises:
        RequestError: a feature needs images and there are none, or the metadata's folder is not given.
    """
    named = next((f for f in recipe.features if isinstance(f, Datacomp)), None)
    bare = pool.metadata_only
    if not bare and named is None:
        return recipe
    if not bare and named is not None and not named.metadata:
        raise RequestError(
            f"features.datacomp.metadata: {pool.folder.url} is a pool of tars, so give the folder of its metadata: "
            "--metadata FOLDER"
        )
    folder = None if bare or named is None else named.metadata
    model = _model(recipe, named)
    given = SIZE | ({"sha256"} if bare else set()) | (SCORE | VECTORS if model else set())
    reads = {column for step in recipe.filters for column in step.filter.reads}
    reads |= {column for f in recipe.features for column in getattr(f, "reads", ())}  # of global features
    others = [f for f in recipe.features if not (isinstance(f, Index) or f.stands_in)]
    replaced = [f for f in others if (set(f.columns()) & reads or set(f.columns())) <= given]
    wanted = reads & given
    for feature in replaced:  # one that no filter reads was named for all of its columns
        wanted |= set(feature.columns()) & reads or set(feature.columns())
    features: list[Feature] = [Index()]
    if named is not None or wanted - VECTORS:
        features.append(Datacomp(metadata=folder, clip=model if wanted & SCORE else None))
    if model and (wanted & VECTORS or any(isinstance(f, DatacompVectors) for f in recipe.features)):
        features.append(DatacompVectors(metadata=folder, clip=model))
        _check_vectors(pool.folder if bare else Folder(str(folder)))
    kept = [f for f in others if f not in replaced]
    if bare:
        for feature in kept:
            _check_bare(feature, pool)
    return replace(recipe, features=(*features, *kept))


def _model(recipe: Recipe, named: Datacomp | None) -> Model | None:
    """Whose scores to take: as `datacomp` says, or as `clip` asks for."""
    for feature in recipe.features:
        if isinstance(feature, DatacompVectors):
            return feature.clip
    if named is not None and named.clip:
        return named.clip
    clip = next((f for f in recipe.features if isinstance(f, Clip)), None)
    return MODELS.get((clip.model, clip.pretrained)) if clip else None


def _check_vectors(folder: Folder) -> None:
    lost = [name for name in metadata_files(folder) if not folder.exists(npz_name(name))]
    if lost:
        raise RequestError(
            f"features.datacomp_vectors: {folder.url} lacks {npz_name(lost[0])}, which clip_image and clip_text need"
        )


def _check_bare(feature: Feature, pool: Pool) -> None:
    if isinstance(feature, Clip):
        raise RequestError(
            f"features.clip: {pool.folder.url} is metadata only, with the scores of ViT-B-32 and ViT-L-14 of openai, "
            f"not of {feature.model}; --set features.clip.model=ViT-L-14 --set features.clip.pretrained=openai"
        )
    if {"bytes", "header", "image"} & set(feature.needs):
        raise RequestError(
            f"features.{feature.name}: {pool.folder.url} is metadata only, and {feature.name} needs the images; "
            "leave out the filters that read it, or give the pool of tars and --metadata"
        )
