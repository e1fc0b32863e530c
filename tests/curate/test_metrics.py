"""Metrics: what Prometheus reads is what the manifest says, over several runs, processes and failures."""

from __future__ import annotations

import base64
import http.server
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from curate import metrics
from curate.cli import run
from curate.commands.metrics import serve
from curate.drift import Move
from curate.errors import RequestError
from curate.metrics.ledger import FILE, FOLDER, GATEWAY, Ledger, read, registry_of
from curate.metrics.names import METRICS, SERIES
from tests.conftest import messy_pairs, write_pool
from tests.flows.prefect_server import free_port, wait_for


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Metrics are on, and in this folder."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "metrics"))
    monkeypatch.delenv(GATEWAY, raising=False)
    metrics.ledger.LEDGER.forget()
    yield tmp_path / "metrics"
    metrics.ledger.LEDGER.forget()


def shown(text: str) -> dict[tuple[str, ...], float]:
    """Samples as Prometheus' own parser finds them: (name, values of the labels in the order of the names)."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, *(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


def test_what_is_written_is_what_the_manifest_says_and_another_run_adds_to_it(tmp_path: Path, folder: Path) -> None:
    pool = str(write_pool(tmp_path / "pool", messy_pairs()))
    assert run(["filter", pool, str(tmp_path / "a"), "--workers", "1"]) == 0
    first = json.loads((tmp_path / "a" / "manifest.json").read_text())
    found = shown((folder / FILE).read_text())
    assert found["curate_samples_measured_total",] == first["measure"]["samples_measured"] == first["pool"]["samples"]
    assert found["curate_images_decoded_total",] == first["measure"]["images_decoded"] > 0
    assert found["curate_samples_kept_total", "default"] == first["selection"]["kept"]
    for step in first["funnel"]:
        assert found["curate_samples_dropped_total", step["filter"], "default"] == step["dropped"]
        assert found["curate_filter_keep_ratio", step["filter"], "default"] == pytest.approx(step["out"] / step["in"])
    assert found["curate_written_bytes_total", "default"] == sum(shard["bytes"] for shard in first["shards"])
    assert found["curate_stage_shards", "measure"] == found["curate_stage_shards_done", "measure"] == 5
    assert all(found["curate_stage_seconds_total", one] > 0 for one in ("measure", "select", "write", "report"))
    assert found["curate_stage_cpu_seconds_total", "measure"] > 0
    assert found["curate_runs_total", "", "curate filter", "success"] == 1
    assert found["curate_runs_total", "", "curate filter", "failure"] == 0

    # The same again did nothing new; a stricter one adds what it did; a request that is wrong is no run.
    assert run(["filter", pool, str(tmp_path / "a"), "--workers", "1"]) == 0
    assert shown((folder / FILE).read_text())["curate_samples_kept_total", "default"] == first["selection"]["kept"]
    strict = ["--set", "image_size.min_side=150", "--workers", "1"]
    assert run(["filter", pool, str(tmp_path / "b"), *strict]) == 0
    second = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert run(["filter", str(tmp_path / "none"), str(tmp_path / "c")]) == 2
    found = shown((folder / FILE).read_text())
    kept = [one["selection"]["kept"] for one in (first, second)]
    assert found["curate_samples_kept_total", "default"] == sum(kept) and kept[1] < kept[0]
    assert found["curate_keep_ratio", "default"] == pytest.approx(kept[1] / second["selection"]["rows"])
    assert found["curate_samples_measured_total",] == first["measure"]["samples_measured"]
    assert found["curate_runs_total", "", "curate filter", "success"] == 3


def test_a_failed_run_is_counted_and_the_last_success_stays(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "00000.tar").write_bytes(b"\0" * 10240)
    metrics.ran("curate filter", "", True, 2.0)
    good = shown((folder / FILE).read_text())["curate_last_success_timestamp_seconds", "", "curate filter"]
    assert run(["filter", str(tmp_path / "empty"), str(tmp_path / "out"), "--workers", "1"]) == 1
    found = shown((folder / FILE).read_text())
    assert found["curate_runs_total", "", "curate filter", "failure"] == 1
    assert found["curate_last_run_success", "", "curate filter"] == 0
    assert found["curate_last_success_timestamp_seconds", "", "curate filter"] == good
    assert found["curate_last_run_timestamp_seconds", "", "curate filter"] >= good
    assert found["curate_stage_failures_total", "measure"] == 1


def test_without_a_folder_nothing_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    metrics.ran("curate filter", "", True)
    metrics.flush()
    assert not list(tmp_path.rglob("*.prom")) and not metrics.enabled()


def test_what_else_is_told_of_a_night_has_its_metric(folder: Path) -> None:
    metrics.crawled({"pages_read": 7, "pairs": 30, "failures": {"robots": 2, "timeout": 1}})
    metrics.downloaded({"downloaded": 25, "failed": {"http_4xx": 4, "dns": 1}}, {"00000.tar": 700, "00000.parquet": 9})
    metrics.trained(samples=5120, seconds=20.0, per_second=256.0, loss=1.5, device="cuda:0")
    metrics.accuracies("proof", [{"name": "recipe", "value": 0.45}, {"name": "no filter", "value": 0.31}])
    moves = [Move("keep rate", "image_size", 0.5, 1.0, 0.5, 0.02, 3), Move("distribution", "width", 1, 1, 0.1, 0.2, 3)]
    metrics.drift("web", moves)
    metrics.drift("web", moves, new=False)  # the same run, started again
    metrics.flush()
    found = shown((folder / FILE).read_text())
    pages = {outcome: found["curate_crawl_pages_total", outcome] for outcome in ("read", "robots", "timeout")}
    assert pages == {"read": 7, "robots": 2, "timeout": 1}
    images = {outcome: found["curate_downloads_total", outcome] for outcome in ("downloaded", "http_4xx", "dns")}
    assert images == {"downloaded": 25, "http_4xx": 4, "dns": 1}
    assert found["curate_crawl_pairs_total",] == 30 and found["curate_downloaded_bytes_total",] == 700
    assert found["curate_training_samples_total", "cuda"] == 5120 and found["curate_training_loss",] == 1.5
    assert found["curate_stage_gpu_seconds_total", "train"] == 20
    assert found["curate_accuracy_ratio", "recipe", "proof"] == 0.45
    assert found["curate_drift_alarms_total", "keep rate", "web"] == 1
    assert found["curate_drift_alarms_total", "distribution", "web"] == 0
    assert found["curate_drift_change", "keep rate", "web", "image_size"] == 0.5


ADD = """
import sys
from curate import metrics
for _ in range(40):
    metrics.crawled({"pages_read": 1, "pairs": 2, "failures": {}})
    metrics.flush()
metrics.crawled({"pages_read": 5, "pairs": 0, "failures": {}})  # written when the process ends
"""


def test_processes_that_count_at_the_same_time_lose_nothing(folder: Path) -> None:
    both = [subprocess.Popen([sys.executable, "-c", ADD]) for _ in range(2)]
    assert [one.wait(120) for one in both] == [0, 0]
    found = shown((folder / FILE).read_text())
    assert found["curate_crawl_pages_total", "read"] == 90 and found["curate_crawl_pairs_total",] == 160


def test_a_forked_process_does_not_write_what_its_parent_will(folder: Path) -> None:
    metrics.crawled({"pages_read": 3, "pairs": 0, "failures": {}})
    child = os.fork()
    if child == 0:
        metrics.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    metrics.flush()
    assert shown((folder / FILE).read_text())["curate_crawl_pages_total", "read"] == 3


LABEL = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20)


@given(st.dictionaries(st.tuples(LABEL, LABEL), st.integers(0, 2**53), max_size=8))
def test_names_with_any_signs_are_read_as_they_were_written(tmp_path_factory: Any, values: dict) -> None:
    from prometheus_client import generate_latest

    series = {("curate_samples_dropped_total", key): float(value) for key, value in values.items()}
    path = tmp_path_factory.mktemp("metrics") / FILE
    path.write_bytes(generate_latest(registry_of(series)))
    assert read(path) == series


def test_a_metric_has_only_so_many_series(folder: Path) -> None:
    for number in range(SERIES + 50):
        metrics.accuracies(f"experiment {number}", [{"name": "recipe", "value": number / 1000}])
    metrics.flush()
    rows = [key for key in shown((folder / FILE).read_text()) if key[0] == "curate_accuracy_ratio"]
    assert len(rows) == SERIES + 1 and ("curate_accuracy_ratio", "other", "other") in rows


def test_what_is_damaged_or_cannot_be_written_fails_no_run(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    (folder / FILE).write_bytes(b'curate_runs_total{flow="\xff 1\n{{{')
    metrics.ran("curation", "nightly", True)
    assert shown((folder / FILE).read_text())["curate_runs_total", "nightly", "curation", "success"] == 1
    assert "is damaged; counting begins anew" in caplog.text
    monkeypatch.setenv(FOLDER, str(folder / FILE))  # a file, where a folder is wanted
    metrics.ran("curation", "nightly", True)
    assert f"{FOLDER}: nothing could be written" in caplog.text
    with pytest.raises(RequestError, match=FOLDER):
        metrics.check()
    monkeypatch.setenv(FOLDER, str(folder))  # somebody repaired it: nothing was lost
    metrics.flush()
    assert shown((folder / FILE).read_text())["curate_runs_total", "nightly", "curation", "success"] == 2


class Gateway(http.server.BaseHTTPRequestHandler):
    told: list[tuple[str, str, dict[str, str], str]]

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.told.append((self.command, self.path, dict(self.headers), body))
        self.send_response(500 if "broken" in self.path else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def gateway() -> Iterator[Any]:
    """A server that takes what is pushed and notes it in `told`."""
    kind = type("Kind", (Gateway,), {"told": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.told = kind.told  # type: ignore[attr-defined]
    yield server
    server.shutdown()


def test_the_file_is_pushed_whole_with_a_password_that_no_log_shows(
    folder: Path, gateway: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(GATEWAY, f"http://curate:T0K3N@127.0.0.1:{gateway.server_port}")
    metrics.check()
    metrics.ran("curation", "nightly", True, 12.5)
    metrics.ran("curation", "nightly", False, 1.5)
    assert [path.startswith("/metrics/job/curate/instance/") for _, path, _, _ in gateway.told] == [True, True]
    _, _, headers, body = gateway.told[-1]
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"curate:T0K3N").decode()
    assert body == (folder / FILE).read_text()
    assert shown(body)["curate_run_seconds", "nightly", "curation"] == 1.5
    monkeypatch.setenv(GATEWAY, f"http://curate:T0K3N@127.0.0.1:{gateway.server_port}/broken")
    metrics.ran("curation", "nightly", True)
    assert "did not take the metrics: HTTPError" in caplog.text and "T0K3N" not in caplog.text
    assert shown((folder / FILE).read_text())["curate_runs_total", "nightly", "curation", "success"] == 2


def test_prometheus_own_gateway_takes_what_is_pushed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (program := shutil.which("prometheus-pushgateway")) is None:
        pytest.skip("no prometheus-pushgateway here (Debian's package): only our own receiver was pushed to")
    port = free_port()
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen([program, f"--web.listen-address=127.0.0.1:{port}"], **quiet)
    try:
        wait_for("the gateway", lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready").status == 200)
        monkeypatch.setenv(GATEWAY, f"http://127.0.0.1:{port}")
        metrics.ran("curation", "nightly", True, 12.5)
        page = f"http://127.0.0.1:{port}/metrics"
        wanted = re.compile(r'curate_run_seconds{deployment="nightly",flow="curation",instance=".+",job="curate"} 12.5')
        wait_for("what was pushed", lambda: wanted.search(urllib.request.urlopen(page).read().decode()), 30)
    finally:
        running.terminate()
        running.wait(30)


@pytest.mark.parametrize(("variable", "value"), [(GATEWAY, "ftp://T0K3N/"), (GATEWAY, "T0K3N")])
def test_a_wrong_setting_is_found_before_the_night(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(RequestError, match=variable) as wrong:
        metrics.check()
    assert "T0K3N" not in str(wrong.value)
    monkeypatch.setenv(GATEWAY, "http://127.0.0.1:9091")
    monkeypatch.delenv(FOLDER)
    with pytest.raises(RequestError, match=FOLDER):
        metrics.check()


def test_the_command_shows_the_file_and_serves_it_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["metrics"]) == 2 and "holds no curate.prom" in capsys.readouterr().err
    metrics.ran("curation", "nightly", True)
    assert run(["metrics", str(folder)]) == 0
    assert capsys.readouterr().out == (folder / FILE).read_text()
    port = serve(folder / FILE, "127.0.0.1", 0)
    for _ in range(2):
        metrics.ran("curation", "nightly", True)
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    assert shown(text)["curate_runs_total", "nightly", "curation", "success"] == 3


def test_a_served_folder_ends_when_it_is_told_to(folder: Path) -> None:
    metrics.ran("curation", "nightly", True)
    command = [sys.executable, "-m", "curate.cli", "metrics", str(folder), "--serve", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr
        address = running.stderr.readline().strip()
        assert "curate_runs_total" in urllib.request.urlopen(address).read().decode()
        running.terminate()
        assert running.wait(60) == 0


def test_names_are_as_prometheus_wants_them_and_each_is_documented() -> None:
    docs = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()
    for name, metric in METRICS.items():
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert f"`{name}`" in docs and all(f"`{label}`" in docs for label in metric.labels), name
    with pytest.raises((KeyError, AssertionError)):
        os.environ[FOLDER] = "/nowhere"
        try:
            Ledger().add("curate_runs_total", flow="x")
        finally:
            del os.environ[FOLDER]
