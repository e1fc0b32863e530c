"""The flow under a real Prefect server, in the same environment as img2dataset."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from curate.cli import run
from tests.conftest import messy_pairs, write_pool

# Through the bare API: its plain data is all that is asked for.
ASK = """
import asyncio, json
from prefect import get_client

async def ask():
    async with get_client() as client:
        found = {}
        for kind in ("flow_runs", "task_runs", "artifacts"):
            found[kind] = (await client.request("POST", f"/{kind}/filter", json={})).json()
    return {"runs": [r["state"]["name"] for r in found["flow_runs"]],
            "tasks": sorted(r["name"].split("-")[0] for r in found["task_runs"]),
            "artifacts": {a["key"]: a["data"] for a in found["artifacts"]}}

print(json.dumps(asyncio.run(ask())))
"""


@pytest.mark.slow
def test_the_flow_does_what_the_command_does_and_shows_it_in_prefect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    pool = write_pool(tmp_path / "pool", messy_pairs())
    assert run(["filter", str(pool), str(tmp_path / "a"), "--workers", "1"]) == 0
    # A process of its own, as a scheduled run is: the temporary server must start beside img2dataset.
    command = [sys.executable, "-m", "curate.cli", "run", "default", "--pool", str(pool), "--out", str(tmp_path / "b")]
    command += ["--history", str(tmp_path / "history"), "--drift", "psi=0.3", "--stage-timeout", "600"]
    done = subprocess.run([*command, "--workers", "1", "--json"], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["selection"]["kept"] > 20
    same = ["selection.parquet", "shards/00000.tar", "shards/00000.parquet"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in same)
    seen = json.loads(subprocess.run([sys.executable, "-c", ASK], check=True, capture_output=True, text=True).stdout)
    assert seen["runs"] == ["Completed"]
    assert seen["tasks"] == ["drift", "measure", "report", "select", "write"]
    assert "report.html" in seen["artifacts"]["report"] and "exact_duplicates" in seen["artifacts"]["funnel"]
    assert seen["artifacts"]["drift"] == "[]" and (tmp_path / "history" / "curation.jsonl").exists()  # the first one
    kept = json.loads(done.stdout)["selection"]["kept"]
    assert seen["artifacts"]["summary"].startswith(f"# `default` kept {kept} of 40 samples")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--drift", "psi=0.3"], "--drift: it is about --history, which is missing"),
        (
            ["--history", "h", "--drift", "psy=0.3"],
            "--drift: psy: Extra inputs are not permitted; there are psi, sigmas",
        ),
        (["--history", "h", "--drift", "psi=low"], "--drift: psi: Input should be a valid number"),
        (["--history", "h", "--drift", "psi"], "--drift: write it like psi=0.2"),
    ],
)
def test_a_wrong_bound_of_drift_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    pool = write_pool(tmp_path / "pool", messy_pairs()[:2])
    assert run(["run", "default", "--pool", str(pool), "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_wrong_request_fails_before_the_flow_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "default", "--pool", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("curate: POOL: ")


def test_the_backport_that_breaks_prefect_is_not_installed() -> None:
    names = {d.metadata["Name"].lower() for d in distributions()}
    assert "img2dataset" in names and "dataclasses" not in names
