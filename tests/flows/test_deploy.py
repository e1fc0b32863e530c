"""Deployments: a wrong file is refused at once; a run of a schedule that is killed ends as if it had not been."""

from __future__ import annotations

import http.server
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from curate.cli import run
from curate.demo.server import serve
from curate.drift import Observation, record
from curate.recipe import load_recipe
from curate.storage import Folder
from flows.deploy_file import flow_of
from tests.conftest import encoded, messy_pairs, photo, write_pool
from tests.flows.prefect_server import PrefectServer, find_postgres, wait_for

ROOT = Path(__file__).resolve().parents[2]
GATE = '''
"""Keeps all, but waits at a gate: a run can be cut off there."""
import os, time
from pathlib import Path
from filters.contract import Columns, RowFilter

class Gate(RowFilter):
    @property
    def reads(self):
        return ("width",)

    def keep(self, t: Columns):
        gate = Path(__file__).with_name("gate")
        if gate.exists():
            gate.with_name("reached").write_text(str(os.getpid()))
        while gate.exists():
            time.sleep(0.1)
        return t.width > 0

    def reason(self, t: Columns):
        return t.width.cast("string")
'''


SLOW = """
import time
from filters.contract import Columns, RowFilter

class Slow(RowFilter):
    @property
    def reads(self):
        return ("width",)

    def keep(self, t: Columns):
        time.sleep(3)
        return t.width > 0

    def reason(self, t: Columns):
        return t.width.cast("string")
"""


def plan(folder: Path, **changes: Any) -> Path:
    one = {"name": "nightly", "flow": "curation", "cron": "0 3 * * *", "parameters": {"pool": "p", "out": "o"}}
    file = folder / "deployments.yaml"
    file.write_text(yaml.safe_dump({"deployments": [one | changes]}))
    return file


def test_a_right_file_is_checked_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["deploy", str(plan(tmp_path, timezone="Europe/Berlin")), "--check"]) == 0
    assert capsys.readouterr().out == "curation/nightly\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"flow": "curate"}, "deployments.0.flow: Input should be"),
        ({"cron": "every night"}, "deployments.0.cron: 'every night' is no cron line"),
        ({"timezone": "Europe/Berlino"}, "no time zone 'Europe/Berlino'"),
        ({"interval": 5}, "give cron or interval, not both"),
        ({"cronn": "0 3 * * *"}, "deployments.0.cronn: Extra inputs"),
        ({"parameters": {"pool": "p"}}, "nightly: parameters: missing a required argument: 'out'"),
        ({"parameters": {"pool": "p", "out": "o", "worker": 1}}, "parameters.worker: curation has no such parameter"),
        ({"parameters": {"pool": "p", "out": "o", "workers": "two"}}, "workers: Input should be a valid integer"),
        ({"parameters": {"pool": "p", "out": "o", "drift": {"psy": 1}}}, "drift.psy: Extra inputs"),
        ({"parameters": {"pool": "p", "out": "o", "recipe": "none.yaml"}}, "nightly: --recipe: no file 'none.yaml'"),
        ({"flow": "ablation", "parameters": {"experiment": "none.yaml", "out": "o"}}, "nightly: EXPERIMENT: none.yaml"),
    ],
)
def test_a_wrong_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    assert run(["deploy", str(plan(tmp_path, **changes)), "--check"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("curate: ") and error.count("\n") == 1


def test_prefect_yaml_gives_every_flow_parameters_that_it_takes() -> None:
    for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        flow = flow_of(one["entrypoint"].rpartition(":")[2])
        inspect.signature(flow.fn).bind(**one["parameters"])


def test_metrics_that_cannot_be_kept_are_found_before_the_night(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURATE_METRICS", str(plan(tmp_path)))  # a file, where a folder is wanted
    assert run(["deploy", str(plan(tmp_path)), "--check"]) == 2
    assert capsys.readouterr().err.startswith("curate: CURATE_METRICS: ")


@pytest.mark.parametrize(
    ("text", "said"), [("a: [", "not YAML"), ("- x", "a mapping"), ("deployments: []", "at least")]
)
def test_a_file_of_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    file = tmp_path / "d.yaml"
    file.write_text(text)
    assert run(["deploy", str(file), "--check"]) == 2 and said in capsys.readouterr().err
    assert run(["deploy", str(tmp_path / "none.yaml"), "--check"]) == 2


@pytest.mark.slow
def test_a_schedule_fires_is_killed_and_ends_as_if_it_had_not_been(tmp_path: Path, server: PrefectServer) -> None:
    """Pages over HTTP to a dataset, on a schedule; kill -9 of all its processes in the midst, and started again."""
    told: list[dict[str, Any]] = []
    recipe = _recipe(tmp_path)
    _history(tmp_path / "history", str(recipe))
    with serve(_site(tmp_path / "web"), 0) as origin, _webhook(told) as hook:
        parameters = {
            "sources": [f"{origin}/index.html"],
            "folder": str(tmp_path / "nights" / "{date}-{time}"),
            "recipe": str(recipe),
            "history": str(tmp_path / "history"),
            "allow_private": True,
            "workers": 1,
            "downloading": {"processes": 1, "retries": 0},
        }
        file = plan(tmp_path, flow="pipeline", cron=None, interval=5, parameters=parameters)
        environment = server.environment | {"CURATE_WEBHOOK": f"{hook}/secret-token"}
        (tmp_path / "gate").touch()
        first = _deploy(file, environment, tmp_path / "first.log")
        worker = int(wait_for("the first run", lambda: _text(tmp_path / "reached")))
        (night,) = (tmp_path / "nights").iterdir()
        assert not (night / "dataset" / "manifest.json").exists() and (night / "pool" / "00000.tar").exists()
        for process in (first.pid, *_parents(worker, first.pid), worker):
            os.kill(process, signal.SIGKILL)
        first.wait(60)
        (tmp_path / "gate").unlink()
        second = _deploy(file, environment, tmp_path / "second.log")
        try:
            wait_for("the run that was started again", lambda: (night / "dataset" / "manifest.json").exists())
            done = wait_for("its end", lambda: _completed(server, night.name))
            assert wait_for("the notice", lambda: told)
        finally:
            second.terminate()
            second.wait(120)
    assert done["deployment_id"] and done["run_count"] == 2
    assert run(["filter", str(night / "pool"), str(tmp_path / "same"), "-r", str(recipe), "--workers", "1"]) == 0
    for name in ("selection.parquet", "shards/00000.tar", "shards/00000.parquet"):
        assert (night / "dataset" / name).read_bytes() == (tmp_path / "same" / name).read_bytes(), name
    artifacts = {one["key"]: one for one in server.ask("/artifacts/filter", {}) if str(night) in str(one)}
    assert {"acquired", "funnel", "report", "drift", "drift-alarm"} <= artifacts.keys()
    (alarm,) = [one for one in told if one["out"].startswith(str(night))]
    assert alarm["event"] == "drift" and "image_size kept 100.0% of what came in, 50.0% before" in alarm["text"]
    logs = "".join(entry["message"] for entry in server.ask("/logs/filter", {"limit": 200}))
    said = (tmp_path / "first.log").read_text() + (tmp_path / "second.log").read_text()
    assert "secret-token" not in logs + said and "was cut off and is started again" in said


@pytest.mark.slow
def test_deployments_are_registered_for_the_workers_of_a_pool(tmp_path: Path, server: PrefectServer) -> None:
    deployments = plan(tmp_path, concurrency=3, parameters={"pool": "p", "out": "o", "workers": 1})
    command = [sys.executable, "-m", "curate.cli", "deploy", str(deployments), "--work-pool", "curate"]
    ask: dict[str, Any] = {"capture_output": True, "text": True, "env": server.environment, "cwd": tmp_path}
    refused = subprocess.run(command, check=False, **ask)
    assert refused.returncode == 2 and "--work-pool: no pool 'curate'" in refused.stderr
    server.ask("/work_pools/", {"name": "curate", "type": "process"})
    assert subprocess.run(command, check=True, **ask).stdout == "curation/nightly\n"
    found = server.ask("/deployments/name/curation/nightly")
    assert found["work_pool_name"] == "curate" and found["schedules"][0]["schedule"]["cron"] == "0 3 * * *"
    assert found["global_concurrency_limit"]["limit"] == 3
    write_pool(tmp_path / "p", messy_pairs()[:10])
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "slow.yaml").write_text("name: slow\nfilters: ['slow:Slow']\n")
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    subprocess.run([*prefect, "concurrency-limit", "create", "curate-select", "1"], check=True, **ask)
    told: list[dict[str, Any]] = []
    with _webhook(told) as hook:
        two = [{"recipe": "slow.yaml", "out": out, "cache": f"{out}-cache"} for out in ("o", "o2")]
        for changes in (*two, {"out": "p"}):  # the last is a wrong request: the dataset in the pool
            server.ask(f"/deployments/{found['id']}/create_flow_run", {"parameters": changes})
        ask["env"] = server.environment | {"CURATE_WEBHOOK": hook}
        subprocess.run([*prefect, "worker", "start", "--pool", "curate", "--run-once"], check=True, **ask)
        said = wait_for("the notice of a failure", lambda: told)[0]
    assert len(told) == 1, told
    assert said["event"] == "failure" and said["flow"] == "curation" and "lies in the pool" in said["message"]
    assert all(json.loads((tmp_path / o / "manifest.json").read_text())["selection"]["rows"] == 10 for o in ("o", "o2"))
    first, second = sorted(_times(server, "select")[-2:])
    assert first[0] < first[1] <= second[0] < second[1]  # the limit of its tag: one at a time, over both runs
    subprocess.run([*prefect, "deploy", "--all", "--prefect-file", "prefect.yaml"], check=True, **ask | {"cwd": ROOT})
    for one in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        flow = one["entrypoint"].rpartition(":")[2]
        assert server.ask(f"/deployments/name/{flow}/{one['name']}")["entrypoint"] == one["entrypoint"]


@pytest.mark.slow
def test_the_server_ran_on_postgresql(server: PrefectServer) -> None:
    if server.no_postgres:
        pytest.skip(server.no_postgres)
    assert find_postgres()[0]


def _site(folder: Path) -> Path:
    """A page with images, one of them twice."""
    folder.mkdir()
    tags = []
    for number in range(12):
        (folder / f"{number}.jpg").write_bytes(encoded(photo(min(number, 10), (200, 150))))
        tags.append(f'<img src="{number}.jpg" alt="a quiet picture number {number} of the old town">')
    (folder / "index.html").write_text(f"<html><body>{''.join(tags)}</body></html>")
    return folder


def _recipe(folder: Path) -> Path:
    (folder / "gated.py").write_text(GATE)
    file = folder / "recipe.yaml"
    steps = [{"image_size": {"min_side": 64}}, "exact_duplicates", "gated:Gate"]
    file.write_text(yaml.safe_dump({"name": "nightly", "filters": steps}))
    return file


def _history(folder: Path, recipe: str) -> None:
    """An earlier night that kept half of what came in."""
    facts = {"at": "2026-01-01T00:00:00+00:00", "out": "earlier", "pool_fingerprint": "0", "samples": 1000}
    night = Observation(recipe_hash=load_recipe(recipe).hash, rates={"image_size": (1000, 500)}, **facts)  # type: ignore[arg-type]
    record(Folder(str(folder)), [], night)


def _webhook(told: list[dict[str, Any]]) -> Any:
    import contextlib

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    @contextlib.contextmanager
    def running() -> Iterator[str]:
        listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()

    return running()


def _deploy(file: Path, environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "curate.cli", "deploy", str(file)]
    return subprocess.Popen(command, env=environment, cwd=file.parent, stdout=log.open("w"), stderr=subprocess.STDOUT)


def _parents(process: int, end: int) -> list[int]:
    """The processes between one and its forebear `end`."""
    found = []
    while (process := int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])) not in (end, 1):
        found.append(process)
    return found


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _times(server: PrefectServer, stage: str) -> list[tuple[str, str]]:
    """When a stage's tasks of the recipe `slow` began and ended, the earliest first; their runs overlapped."""
    flows = [one for one in server.ask("/flow_runs/filter", {}) if one["parameters"].get("recipe") == "slow.yaml"]
    assert max(one["start_time"] for one in flows) < min(one["end_time"] for one in flows)
    runs = server.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [one["id"] for one in flows]}}})
    return sorted((run["start_time"], run["end_time"]) for run in runs if run["name"].startswith(stage))


def _completed(server: PrefectServer, night: str) -> dict[str, Any] | None:
    """The run of a night, once it is completed."""
    asked = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}, "deployment_id": {"is_null_": False}}}
    for one in server.ask("/flow_runs/filter", asked):
        if one["expected_start_time"].replace("T", "-").replace(":", "").startswith(night[:10] + "-" + night[11:]):
            return one
    return None
