"""What flows share: folders by date, one run in a folder at a time, limits by name."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from prefect import runtime

from curate.acquire.download import DownloadLimits
from curate.errors import RequestError
from flows.stages import alone, dated


def test_a_folder_by_date_is_that_of_the_time_it_was_scheduled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    at = datetime(2026, 3, 1, 0, 30, 5, tzinfo=timezone(timedelta(hours=1)))
    monkeypatch.setattr(runtime.flow_run, "scheduled_start_time", at, raising=False)
    assert dated("s3://bucket/{date}/{time}") == "s3://bucket/2026-02-28/233005"
    assert dated("{other}") == "{other}"


def test_without_a_schedule_it_is_now() -> None:
    assert dated("{date}") in {f"{datetime.now(UTC):%Y-%m-%d}", f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%d}"}


def test_a_second_run_in_a_folder_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    program = (
        "import sys, time; from flows.stages import alone\n"
        "with alone(sys.argv[1]): print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout and first.stdin and first.stdout.readline() == "in\n"
    second = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(8)
    first.kill()  # the lock ends with its process
    assert second.communicate(timeout=120)[0] == "in\n"
    first.wait()


def test_a_folder_of_a_store_is_not_locked() -> None:
    with alone("memory://bucket/out"), alone("memory://bucket/out"):
        pass


def test_a_limit_that_there_is_not_or_of_another_kind_is_named() -> None:
    from flows.acquire import limits_of

    assert limits_of(DownloadLimits, "downloading", {"retries": 0}).retries == 0
    with pytest.raises(RequestError, match=r"downloading\.retrys: no such limit"):
        limits_of(DownloadLimits, "downloading", {"retrys": 0})
    with pytest.raises(RequestError, match=r"downloading\.retries: Input should be a valid integer"):
        limits_of(DownloadLimits, "downloading", {"retries": "many"})
