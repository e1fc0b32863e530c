"""The whole line, small: what the demo claims is in its files, and a second run does nothing again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest


@pytest.mark.slow
def test_the_demo_from_web_to_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    folder = tmp_path / "demo"
    size = ["--samples", "150", "--samples-seen", "512", "--writer-samples", "256", "--seeds", "2", "--json"]
    command = [sys.executable, "-m", "curate.cli", "demo", str(folder), *size]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    download, manifest = result["download"], result["manifest"]
    assert result["pairs"] == result["crawl"]["pairs"] == download["asked"]
    assert download["downloaded"] + sum(download["failed"].values()) == download["asked"]
    selection = pq.read_table(folder / "dataset" / "selection.parquet")
    assert len(selection) == download["downloaded"] == manifest["pool"]["samples"]
    for row in result["defects"]["defects"]:
        assert row["planted"] == row["caught"] + row["missed"] + row["caught_at_download"]
    caught = {row["defect"]: row for row in result["defects"]["defects"]}
    for defect in ("exact_copy", "blank_image", "tiny_image", "truncated_file", "dead_link", "other_language"):
        assert caught[defect]["missed"] == 0, defect
    arms = {arm["name"]: arm for arm in result["evidence"]["arms"]}
    assert set(arms) == {"raw", "curated"} and all(arm["samples_seen"] == 512 for arm in arms.values())
    (comparison,) = result["evidence"]["comparisons"]
    low, high = comparison["interval"]
    assert low <= comparison["difference"] <= high
    counts = result["recaption"]["counts"]
    dropped = {step["filter"]: step["dropped"] for step in manifest["funnel"]}
    assert counts["samples"] == len(selection) and counts["candidates"] == dropped["clip_score"]
    assert counts["chosen"]["original"] + counts["replaced"] == counts["candidates"]
    page = (folder / "dataset" / "report.html").read_text()
    assert "Planted defects" in page and "which-object" in page

    trained = {p: p.stat().st_mtime_ns for p in folder.rglob("train.json")}
    again = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert again["evidence"] == result["evidence"] and again["manifest"] == manifest
    assert again["recaption"] == result["recaption"]
    assert trained == {p: p.stat().st_mtime_ns for p in folder.rglob("train.json")}
