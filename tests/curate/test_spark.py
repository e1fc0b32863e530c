"""The Spark engine keeps what the local engine keeps, byte for byte."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from curate.cli import run
from tests.conftest import messy_pairs, write_pool

RECIPE = """
filters:
  - image_size
  - image_quality
  - caption_rules
  - language
  - exact_duplicates: {keep: highest_clip_score}
  - near_duplicate_captions: {boilerplate: 2, min_jaccard: 0.97, keep: highest_clip_score}
  - near_duplicate_images: {max_distance: 8}
  - clip_score: {keep_fraction: 0.9}
  - diversity: {keep_fraction: 0.8}
"""


def java_of_spark() -> bool:
    if shutil.which("java") is None:
        return False
    said = subprocess.run(["java", "--list-modules"], capture_output=True, text=True).stdout
    return "jdk.incubator.vector" in said


def need_spark() -> None:
    """Skips a test, and says so, where Spark cannot start."""
    pytest.importorskip("pyspark", reason="needs pyspark: the extra `spark` is not installed")
    if not java_of_spark():
        pytest.skip("needs Java 17 or 21 with the vector module on the PATH; Spark was not tested")


@pytest.mark.slow
@pytest.mark.spark
def test_local_and_spark_write_the_same_bytes(tmp_path: Path, tiny_clip: Path) -> None:
    need_spark()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    found = []
    for engine in ("local", "spark"):
        pool, out = write_pool(tmp_path / f"pool-{engine}", messy_pairs()), tmp_path / engine
        model = f"features.clip.model={tiny_clip}"
        command = ["filter", str(pool), str(out), "-r", str(recipe), "--set", model, "--samples-per-shard", "8"]
        assert run([*command, "--engine", engine, "--workers", "2"]) == 0
        files = [out / "selection.parquet", *sorted((out / "shards").iterdir())]
        found.append({str(file.relative_to(out)): file.read_bytes() for file in files})
    assert len(found[0]) > 4 and found[0] == found[1]
