from __future__ import annotations

import json
from pathlib import Path

import pytest

from curate.cli import run
from tests.conftest import messy_pairs, write_pool


def test_measure_fills_the_cache_for_filter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_pool(tmp_path / "pool", messy_pairs())
    assert run(["measure", str(pool), "--features", "phash, image_info", "--workers", "1", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["samples"], facts["features_measured"]) == (40, ["image_info", "index", "phash"])
    assert sorted(p.name.split("-")[0] for p in (pool / "_features").iterdir()) == ["image_info", "index", "phash"]
    assert run(["measure", str(pool), "--workers", "1"]) == 0
    assert "image_stats" in capsys.readouterr().out
    assert run(["filter", str(pool), "--dry-run", "--workers", "1"]) == 0
    assert "images decoded: 0" in capsys.readouterr().out


def test_an_unknown_feature_is_named(messy_pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", str(messy_pool), "--features", "phash,nope"]) == 2
    assert capsys.readouterr().err.startswith("curate: features: no feature 'nope'; there are bootstrap, caption, ")
