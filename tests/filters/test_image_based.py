"""Only clusters that a target image is nearest to stay."""

from __future__ import annotations

from curate.recipe import parse_recipe
from filters.image_based import ImageBased
from tests.filters.conftest import Judge


def test_other_clusters_are_dropped(judge: Judge) -> None:
    rows = [{"cluster": 0, "in_target_cluster": True}, {"cluster": 1, "in_target_cluster": False}, {}]
    assert judge(ImageBased(target=["imagenet.npy"]), rows) == {
        "u001": ("cluster 1 is the nearest of no target image", None),
        "u002": ("not measured: cluster, in_target_cluster", None),
    }


def test_it_implies_the_clusters_and_their_embeddings() -> None:
    names = [f.name for f in parse_recipe({"filters": [{"image_based": {"target": "imagenet.npy"}}]}).features]
    assert names == ["index", "clip", "clusters", "target_clusters"]
