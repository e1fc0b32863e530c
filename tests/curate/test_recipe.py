"""Recipes: what is wrong is said in one line that names the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.errors import RequestError
from curate.recipe import builtin_recipes, load_recipe, parse_recipe


def test_features_are_implied_by_the_filters_that_read_them() -> None:
    recipe = parse_recipe({"filters": ["image_size", {"near_duplicate_captions": {"max_copies": 2}}]})
    assert [feature.name for feature in recipe.features] == ["index", "caption", "image_info", "minhash"]


@pytest.mark.parametrize("name", builtin_recipes())
def test_built_in_recipes_are_valid(name: str, tiny_clip: Path, tmp_path: Path) -> None:
    concepts = tmp_path / "concepts.txt"
    concepts.write_text("dog")
    recipe = load_recipe(name, (f"features.clip.model={tiny_clip}", f"features.concepts.metadata={concepts}"))
    assert recipe.filters and recipe.description and len(recipe.hash) == 12


def test_a_change_reaches_the_filter_and_the_hash() -> None:
    plain, changed = load_recipe(), load_recipe(None, ("image_size.min_side=32",))
    assert changed.as_dict()["filters"][0] == {"image_size": {"min_side": 32, "max_side": None}}
    assert plain.hash != changed.hash == load_recipe(None, ("filters.image_size.min_side=32",)).hash


def test_the_hash_ignores_the_name() -> None:
    assert parse_recipe({"name": "a", "filters": ["image_size"]}).hash == parse_recipe({"filters": ["image_size"]}).hash


def test_a_filter_may_come_twice() -> None:
    recipe = parse_recipe({"filters": [{"clip_score": {"min": 0.1}}, {"clip_score": {"keep_fraction": 0.5}}]})
    assert [step.name for step in recipe.filters] == ["clip_score", "clip_score#2"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"filters": ["no_such"]}, "r.yaml: filters[0]: no filter 'no_such'; there are aspect_ratio, caption_rules, "),
        (
            {"filters": [{"image_size": {"min_side": "wide"}}]},
            "r.yaml: filters[0].image_size.min_side: Input should be a valid integer, unable to parse string as an "
            "integer (given 'wide')",
        ),
        (
            {"filters": [{"image_size": {"side": 3}}]},
            "r.yaml: filters[0].image_size.side: Extra inputs are not permitted",
        ),
        (
            {"filters": [{"clip_score": {"min": 0.2, "keep_fraction": 0.3}}]},
            "r.yaml: filters[0].clip_score: give either min or keep_fraction, not both and not neither",
        ),
        ({"filters": [{"image_size": {}, "language": {}}]}, "r.yaml: filters[0]: one filter per list item"),
        ({"filter": []}, "r.yaml: filter: Extra inputs are not permitted"),
        ({"filters": [], "features": {"nope": {}}}, "features: no feature 'nope'; there are bootstrap, caption, "),
        ({"features": {"minhash": {"permutations": 7}}}, "r.yaml: features.minhash.permutations: "),
        ({"filters": ["no.such.module:Filter"]}, "r.yaml: filters[0]: no.such.module:Filter cannot be imported: "),
        ({"filters": ["json:JSONDecoder"]}, "r.yaml: filters[0]: json:JSONDecoder names no Filter class"),
    ],
)
def test_what_is_wrong_is_named(raw: dict, said: str) -> None:
    with pytest.raises(RequestError) as wrong:
        parse_recipe(raw, "r.yaml")
    assert str(wrong.value).startswith(said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("image_size", "--set image_size: write it as FILTER.PARAMETER=VALUE"),
        ("nope.x=1", "--set nope.x=1: the recipe has no filter 'nope'; it has image_size, "),
        ("image_size.min_side=[1", "--set image_size.min_side=[1: not a YAML value"),
    ],
)
def test_a_bad_change_is_named(change: str, said: str) -> None:
    with pytest.raises(RequestError) as wrong:
        load_recipe(None, (change,))
    assert str(wrong.value).startswith(said)


def test_a_file_that_is_no_recipe(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    for text, said in (("[1, 2]", "a recipe is a mapping"), ("a: [", "not YAML")):
        file.write_text(text)
        with pytest.raises(RequestError, match=said):
            load_recipe(str(file))
    with pytest.raises(RequestError, match="no file 'missing\\.yaml', nor a built-in recipe"):
        load_recipe("missing.yaml")
