"""A scorer trained on the pool itself finds wrong captions, and never judges what it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from curate.cli import run
from curate.features.bootstrap import scorer_parts
from tests.conftest import Pair, encoded, members, write_pool
from trainer import scales
from trainer.scales import Scale

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 230), "yellow": (230, 220, 30)}
PAIRS = 320
SETTINGS = ("features.bootstrap.scale=nano", "score.keep_fraction=0.6", "features.bootstrap.keep_fraction=0.6")


@pytest.fixture(autouse=True)
def nano(monkeypatch: pytest.MonkeyPatch) -> Scale:
    """A scale that learns colours in seconds."""
    model = {
        "embed_dim": 16,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        "custom_text": True,
    }
    scale = Scale(
        name="nano", model=model, samples_seen=1920, batch_size=32, image_size=32, lr=3e-3, warmup=5, precision="fp32",
        augment="shift", resize_mode="squash", cache_bytes=1 << 24, workers=0,
    )  # fmt: skip
    monkeypatch.setitem(scales.SCALES, "nano", scale)  # type: ignore[index]
    torch.set_num_threads(1)  # threads that wait for each other cost more than so small a model
    return scale


@pytest.fixture
def pool(tmp_path: Path) -> tuple[Path, set[str]]:
    """Coloured noise with captions that name the colour, a third of them a wrong one; and the keys of those."""
    random, names, wrong, pairs = np.random.default_rng(0), list(COLOURS), set(), []
    for n in range(PAIRS):
        colour = n % len(names)
        pixels = np.clip(np.array(COLOURS[names[colour]]) + random.normal(0, 12, (40, 40, 3)), 0, 255)
        said = colour
        if n % 3 == 0:
            said = (colour + int(random.integers(1, len(names)))) % len(names)
            wrong.add(f"{n:06d}")
        image = encoded(Image.fromarray(pixels.astype(np.uint8)))
        pairs.append(Pair(f"{n:06d}", image, f"a photo of something {names[said]}"))
    return write_pool(tmp_path / "pool", pairs, per_shard=80), wrong


def flags(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def test_filter_trains_a_scorer_and_drops_wrong_captions(pool: tuple[Path, set[str]], tmp_path: Path) -> None:
    folder, wrong = pool
    out = tmp_path / "out"
    assert run(["filter", str(folder), str(out), "-r", "bootstrap", "--workers", "1", *flags(*SETTINGS)]) == 0
    kept = {name.split(".")[0] for name in members(out)}
    assert len(kept) == round(0.6 * PAIRS)
    assert len(kept & wrong) <= 0.1 * len(kept)
    (scorer,) = (folder / "_features" / "_scorers").iterdir()
    folds, parts = scorer_parts(str(scorer))
    assert folds == 2 and set(parts) == {0, 1}
    # Asked again, nothing is trained: the scorer and its scores are in the cache.
    trained = {path: path.stat().st_mtime_ns for path in scorer.rglob("*.safetensors")}
    again = ["filter", str(folder), str(tmp_path / "more"), "-r", "bootstrap", *flags(*SETTINGS), "--set"]
    assert run([*again, "score.keep_fraction=0.3", "--workers", "1"]) == 0
    assert trained == {path: path.stat().st_mtime_ns for path in scorer.rglob("*.safetensors")}


def test_no_model_judges_what_it_was_trained_on(pool: tuple[Path, set[str]], tmp_path: Path) -> None:
    folder, _ = pool
    options = ["--scale", "nano", "--folds", "3", "--rounds", "1", "--workers", "1"]
    assert run(["bootstrap", str(folder), str(tmp_path / "scorer"), *options]) == 0
    folds = []
    for step in range(3):
        work = tmp_path / "scorer" / "steps" / str(step) / "dataset"
        learned = pq.read_table(sorted((work / "shards").glob("*.parquet")))["sha256"].to_pylist()
        folds.append({int(digest[:8], 16) * 3 >> 32 for digest in learned})
    assert folds == [{1, 2}, {0, 2}, {0, 1}]


def test_trusted_pairs_train_one_model_that_judges_all(pool: tuple[Path, set[str]], tmp_path: Path) -> None:
    folder, wrong = pool
    clean = write_pool(tmp_path / "clean", _clean(folder, wrong), per_shard=80)
    scorer, out = tmp_path / "scorer", tmp_path / "out"
    assert run(["bootstrap", str(folder), str(scorer), "--scale", "nano", "--trusted", str(clean)]) == 0
    use = flags(f"features.bootstrap.scorer={scorer}", "score.keep_fraction=0.6")
    assert run(["filter", str(folder), str(out), "-r", "bootstrap", *use, "--workers", "1"]) == 0
    kept = {name.split(".")[0] for name in members(out)}
    assert len(kept & wrong) <= 0.05 * len(kept)


def _clean(folder: Path, wrong: set[str]) -> list[Pair]:
    found = members(folder)
    keys = sorted({name.split(".")[0] for name in found} - wrong)[:160]
    return [Pair(key, found[f"{key}.jpg"], found[f"{key}.txt"].decode()) for key in keys]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("features.bootstrap.scorer=no/such/folder", "features.bootstrap.scorer: no/such/folder holds no scorer.json"),
        ("features.bootstrap.folds=1", "features.bootstrap.folds: Input should be greater than or equal to 2"),
        ("features.bootstrap.scale=huge", "scale: 'huge' is not one of"),
        ("features.bootstrap.trusted=no/such/folder", "no/such/folder"),
    ],
)
def test_wrong_requests(
    pool: tuple[Path, set[str]], tmp_path: Path, capfd: pytest.CaptureFixture, change: str, said: str
) -> None:
    assert run(["filter", str(pool[0]), str(tmp_path / "out"), "-r", "bootstrap", "--set", change]) == 2
    error = capfd.readouterr().err
    assert said in error and "Traceback" not in error


def test_a_scorer_that_is_whole_is_not_trained_again(pool: tuple[Path, set[str]], tmp_path: Path) -> None:
    (tmp_path / "scorer").mkdir()
    (tmp_path / "scorer" / "scorer.json").write_text(json.dumps({"folds": 2}))
    assert run(["bootstrap", str(pool[0]), str(tmp_path / "scorer"), "--scale", "nano"]) == 0
    assert not (tmp_path / "scorer" / "steps").exists()
