"""Prometheus' and Grafana's files: they ask for what there is, in PromQL, and alerts fire when they should."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from curate import metrics
from curate.commands.metrics import serve
from curate.metrics.ledger import FILE, FOLDER
from curate.metrics.names import METRICS
from tests.flows.prefect_server import free_port, wait_for

INFRA = Path(__file__).resolve().parents[2] / "infra"
DASHBOARD: dict[str, Any] = json.loads((INFRA / "grafana" / "dashboards" / "curate.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = [
    rule for group in yaml.safe_load((INFRA / "prometheus/alerts.yml").read_text())["groups"] for rule in group["rules"]
]
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]


def expressions() -> dict[str, str]:
    found = {f"panel {p['title']} {t['refId']}": t["expr"] for p in PANELS for t in p["targets"]}
    found |= {f"alert {rule['alert']}": rule["expr"] for rule in ALERTS}
    for variable in DASHBOARD["templating"]["list"]:
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
        found[f"variable {variable['name']}"] = f'{metric}{{{label}!=""}}'
    return found


def selected(parsed: Any) -> Iterator[tuple[str, set[str]]]:
    """Every metric that an expression selects, with the labels that it asks about."""
    found: list[tuple[str, set[str]]] = []

    def visit(part: Any) -> bool:
        if isinstance(part, promql.VectorSelector):
            found.append((part.name, {matcher.name for matcher in part.matchers.matchers}))
        return True

    promql.walk(parsed, visit)
    return iter(found)


@pytest.mark.parametrize(("where", "expression"), expressions().items())
def test_an_expression_is_promql_on_metrics_and_labels_that_there_are(where: str, expression: str) -> None:
    filled = re.sub(r"\$(deployment|recipe)\b", ".*", expression)
    used = list(selected(promql.parse(filled)))
    assert used
    for name, labels in used:
        known = {"job"} if name == "up" else set(METRICS[name].labels)
        assert labels <= known, f"{where}: {name} has no {labels - known}"
        if name != "up" and METRICS[name].kind == "counter":
            assert re.search(rf"(increase|rate)\({name}|^{name}{{\w+!=\"\"}}$", filled), f"{where}: the bare {name}"


def test_the_dashboard_shows_every_metric_that_is_more_than_a_date() -> None:
    shown = {name for expression in expressions().values() for name in re.findall(r"curate_\w+", expression)}
    assert METRICS.keys() - shown <= {"curate_last_run_timestamp_seconds"}


def test_legends_name_labels_that_are_left_after_the_sum() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            by = re.search(r"by \(([\w, ]+)\)", target["expr"])
            metric = re.search(r"curate_\w+", target["expr"])
            assert metric
            left = set(by[1].split(", ")) if by else set(METRICS[metric[0]].labels)
            assert wanted <= left, panel["title"]


def test_panels_do_not_lie_on_each_other_and_ask_the_source_that_is_provisioned() -> None:
    source = yaml.safe_load((INFRA / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
        assert panel["datasource"]["uid"] == source["uid"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert source["url"] == "http://prometheus:9090"


def test_every_address_is_that_of_a_service_and_every_file_is_mounted_where_it_is_looked_for() -> None:
    jobs = {
        job["job_name"]: job
        for job in yaml.safe_load((INFRA / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    }
    (target,) = jobs["curate"]["static_configs"][0]["targets"]
    command = COMPOSE["metrics"]["command"]
    assert target == f"metrics:{command[command.index('--serve') + 1]}"
    assert COMPOSE["worker"]["environment"]["CURATE_METRICS"] == command[1]
    assert jobs["prefect"]["static_configs"][0]["targets"] == ["prefect:4200"]
    provider = yaml.safe_load((INFRA / "grafana/provisioning/dashboards/curate.yml").read_text())["providers"][0]
    mounts = dict(volume.split(":")[:2] for volume in COMPOSE["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert COMPOSE["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].startswith(
        provider["options"]["path"]
    )
    assert (
        dict(volume.split(":")[:2] for volume in COMPOSE["prometheus"]["volumes"])["./prometheus"] == "/etc/prometheus"
    )


def test_the_alerts_are_those_that_are_documented() -> None:
    docs = (INFRA.parent / "docs" / "metrics.md").read_text()
    assert re.findall(r"^\| `(Curate\w+)` \|", docs, re.M) == [rule["alert"] for rule in ALERTS]


def test_alerts_fire_when_they_should() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool here (Debian's package prometheus): expressions were only parsed")
    ask: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
    for command in (["check", "config", INFRA / "prometheus/prometheus.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run(["promtool", *command], cwd=Path(__file__).parent, **ask)
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_what_a_run_counted_and_answers_every_panel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("no Prometheus here (Debian's package prometheus): nothing was scraped")
    monkeypatch.setenv(FOLDER, str(tmp_path))
    metrics.ran("curation", "nightly", False, 12.5)
    target, port = serve(tmp_path / FILE, "127.0.0.1", 0), free_port()
    config = yaml.safe_load((INFRA / "prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(INFRA / "prometheus/alerts.yml")]
    config["scrape_configs"] = [
        config["scrape_configs"][0] | {"static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
    ]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))

    def ask(path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}") as answer:
            return json.load(answer)["data"]

    def alerts() -> set[str]:
        return {alert["labels"]["alertname"] for alert in ask("alerts")["alerts"]}

    with _prometheus(tmp_path, port):
        assert wait_for("the alert of the failed run", lambda: alerts() & {"CurateRunFailed"}, 120)
        (found,) = ask("query", query='curate_run_seconds{deployment="nightly"}')["result"]
        assert found["value"][1] == "12.5" and found["metric"]["flow"] == "curation"
        for where, expression in expressions().items():
            found = ask("query", query=re.sub(r"\$(deployment|recipe)\b", ".*", expression))
            assert found["resultType"] in ("vector", "scalar"), where


@contextlib.contextmanager
def _prometheus(folder: Path, port: int) -> Iterator[None]:
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command = ["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        running.terminate()
        running.wait(60)
