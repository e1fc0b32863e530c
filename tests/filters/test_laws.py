"""The laws that hold for every built-in filter, also for one added tomorrow."""

from __future__ import annotations

import importlib
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curate.features import column_owners, image_views
from curate.recipe import builtin_filters, load_recipe, parse_recipe
from filters._uids import parse_uids, sort_uids
from filters.contract import Filter, PoolFilter, RowFilter
from tests.conftest import photo
from tests.filters.conftest import Judge

NEEDED: dict[str, dict[str, Any]] = {
    "semantic_duplicates": {"epsilon": 0.5},
    "decontamination": {"against": "evals"},
    "image_based": {"target": "target.npy"},
    "clip_score": {"keep_fraction": 0.5},
    "concept_balance": {"max_per_concept": 5},
    "score": {"column": "clip_score", "keep_fraction": 0.5},
    "random_subset": {"keep_fraction": 0.4},
}
WORDS = ["red", "boat", "lake", "dawn", "old", "town", "dog", "runs"]


def filter_named(name: str) -> Filter:
    parameters = half_listed() if name == "uid_subset" else NEEDED.get(name, {})
    return parse_recipe({"filters": [{name: parameters}]}).filters[0].filter


@cache
def half_listed() -> dict[str, Any]:
    """A subset file that lists every other uid of the rows that the laws are tried on."""
    uids = pa.array([row["uid"] for seed in range(6) for row in some_rows(200, seed)][::2])
    file = Path(tempfile.mkdtemp(prefix="laws-")) / "subset.npy"
    np.save(file, sort_uids(parse_uids(uids)[0]))
    return {"file": str(file)}


def some_views(count: int, random: np.random.Generator) -> list[dict[str, list[int]]]:
    """The views of copies of seven pictures, some darker and all a little noisy."""
    pictures = np.stack([np.asarray(photo(n, (32, 32)).convert("L"), float) for n in range(7)])
    darker = pictures[np.arange(count) % 7] * random.uniform(0.6, 1, (count, 1, 1))
    levels = (darker + random.normal(0, 3, (count, 32, 32))).clip(0, 255).astype(np.uint8)
    return [
        {"view_hashes": hashes.tolist(), "thumbnail": pixels.tolist()}
        for hashes, pixels in zip(image_views.view_hashes(levels), image_views.words(levels), strict=True)
    ]


def some_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows with values of every built-in feature, with ties, near duplicates and nulls among them."""
    from tests.filters.test_near_duplicate_captions import rows as signed

    random = np.random.default_rng(seed)
    captions = [" ".join(random.choice(WORDS, random.integers(2, 7))) for _ in range(count)]
    base = [int(v) for v in random.integers(0, 2**63, 5)]
    views = some_views(count, random)
    out = []
    for n, words in enumerate(signed(*captions)):
        vector = random.normal(size=8)
        values = words | {
            "uid": f"{random.integers(10**12):032x}", "width": int(random.integers(20, 400)),
            "height": int(random.integers(20, 400)), "format": "JPEG", "mode": "RGB",
            "sha256": sha256(str(random.integers(count // 2 + 1)).encode()).hexdigest(),
            "phash": base[n % 5] ^ (1 << int(random.integers(12))), "dhash": base[n % 5],
            "colorhash": n % 9, **views[n],
            "brightness": random.random(), "contrast": random.random() / 4, "sharpness": random.random() * 20,
            "entropy": random.random() * 8, "caption_length": len(captions[n]), "caption_words": n % 6,
            "caption_alpha": random.random(), "language": str(random.choice(["en", "de"])),
            "language_probability": random.random(), "clip_score": round(random.random(), 1),
            "clip_image": (vector / np.linalg.norm(vector)).tolist(), "clip_text": None,
            "cluster": n % 4, "cluster_similarity": n % 17 / 17, "cluster_isolation": n % 4 / 4,
            "in_target_cluster": n % 4 == 1, "evaluation_bits": n % 16, "evaluation_match": f"evals/{n}",
            "concepts": sorted(set(captions[n].split()) - {"runs"}),
            "text_area": n % 7 / 10, "caption_in_image": n % 10 / 10, "nsfw": n % 13 / 13,
        }  # fmt: skip
        if n % 11 == 0:
            values |= dict.fromkeys(("width", "phash", "clip_score", "clip_image", "language", "contrast", "minhash"))
            values |= dict.fromkeys(("cluster", "cluster_similarity", "cluster_isolation", "view_hashes", "dhash"))
        out.append(values)
    return out


@pytest.mark.parametrize("name", builtin_filters())
def test_every_filter_drops_something_and_says_why(name: str, judge: Judge) -> None:
    dropped = judge(filter_named(name), some_rows(200, seed=1))
    assert 0 < len(dropped) < 200
    assert all(reason and len(reason) < 200 for reason, _ in dropped.values())


@pytest.mark.parametrize("name", builtin_filters())
def test_the_answer_does_not_depend_on_the_order(name: str, judge: Judge) -> None:
    rows = some_rows(120, seed=2)
    shuffled = [rows[n] for n in np.random.default_rng(0).permutation(len(rows))]
    assert judge(filter_named(name), shuffled) == judge(filter_named(name), rows)


@pytest.mark.parametrize("name", [n for n in builtin_filters() if isinstance(filter_named(n), RowFilter)])
def test_row_filters_judge_each_row_alone(name: str, judge: Judge) -> None:
    rows, it = some_rows(90, seed=3), filter_named(name)
    assert judge(it, rows[:40]) | judge(it, rows[40:]) == judge(it, rows)


@pytest.mark.parametrize("name", builtin_filters())
def test_no_rows_and_one_row_are_fine(name: str, judge: Judge) -> None:
    assert judge(filter_named(name), []) == {}
    assert len(judge(filter_named(name), some_rows(1, seed=4))) <= 1


@pytest.mark.parametrize("name", builtin_filters())
def test_survivors_named_by_duplicates_are_kept(name: str, judge: Judge) -> None:
    dropped = judge(filter_named(name), some_rows(200, seed=5))
    assert not {of for _, of in dropped.values() if of} & set(dropped)


@pytest.mark.parametrize("name", builtin_filters())
def test_a_filter_is_one_documented_class_that_reads_measured_columns(name: str) -> None:
    it = filter_named(name)
    assert type(it).__module__ == f"filters.{name}" and isinstance(it, RowFilter | PoolFilter)
    assert type(it).__doc__ and importlib.import_module(f"filters.{name}").__doc__
    assert set(it.reads) <= set(column_owners())


def test_the_default_recipe_needs_no_weights() -> None:
    assert "clip" not in {feature.name for feature in load_recipe().features}
