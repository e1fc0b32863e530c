"""What `docker compose up` would start: the parts fit each other and the project. Docker itself is not needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from curate.cli import run

INFRA = Path(__file__).resolve().parents[2] / "infra"
COMPOSE: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if service.get("image") == "curate")


def texts(value: Any) -> list[str]:
    """Every text in a part of the file."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    return [text for item in value for text in texts(item)] if isinstance(value, list) else [str(value)]


def test_it_has_every_part_and_nothing_that_compose_does_not_know() -> None:
    assert set(SERVICES) >= {
        "prefect",
        "postgres",
        "worker",
        "minio",
        "spark",
        "spark-worker",
        "metrics",
        "prometheus",
        "grafana",
    }
    known = {"image", "build", "restart", "entrypoint", "command", "environment", "ports", "volumes", "depends_on",
             "healthcheck", "init", "mem_limit", "security_opt"}  # fmt: skip
    assert all(set(service) <= known for service in SERVICES.values())


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_ours_or_of_a_stated_version(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        file = INFRA / service["build"]["context"] / service["build"]["dockerfile"]
        assert file.resolve() == INFRA / "Dockerfile"
    else:
        assert re.search(r":[\w.-]*\d", service["image"])


def test_the_image_is_made_from_the_lock_and_of_files_that_are_there() -> None:
    lines = (INFRA / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert "requirements.lock" in copied and all((INFRA.parent / word).exists() for word in copied)
    assert any("make .venv/.ready" in line for line in lines) and "USER 1000" in lines


def test_no_port_is_open_to_other_machines_or_used_twice() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


def test_whoever_is_named_is_there_and_is_healthy_if_that_is_waited_for() -> None:
    for service in SERVICES.values():
        wanted = service.get("depends_on", {})
        for name in wanted:
            assert name in SERVICES
            if isinstance(wanted, dict) and wanted[name]["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name]
    hosts = {host for text in texts(SERVICES) for host in re.findall(r"(?:\w+://|@)([a-z-]+):\d+", text)}
    assert hosts and hosts <= set(SERVICES)
    named = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if not v.startswith(".")}
    assert named == set(COMPOSE["volumes"])
    mounted = [v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", []) if v.startswith(".")]
    assert mounted and all((INFRA / path).exists() for path in mounted)


def test_addresses_and_ports_agree() -> None:
    port = SERVICES["prefect"]["command"][-1]
    assert SERVICES["worker"]["environment"]["PREFECT_API_URL"] == f"http://prefect:{port}/api"
    assert f":{port}/api/health" in " ".join(SERVICES["prefect"]["healthcheck"]["test"])
    master = SERVICES["spark"]["command"]
    url = f"spark://spark:{master[master.index('--port') + 1]}"
    assert SERVICES["spark-worker"]["command"][-1] == url == SERVICES["worker"]["environment"]["MASTER"]


def test_no_secret_is_in_the_files_and_each_one_asked_for_is_in_the_example() -> None:
    asked = {name for text in texts(SERVICES) for name in re.findall(r"(?<!\$)\$\{(\w+)", text)}
    example = dict(
        line.split("=", 1) for line in (INFRA / "example.env").read_text().splitlines() if not line.startswith("#")
    )
    assert asked == set(example) and not any(value for name, value in example.items() if "PASSWORD" in name)


def test_the_deployments_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["deploy", str(INFRA / "deployments.yaml"), "--check"]) == 0
    assert capsys.readouterr().out == "curation/nightly\n"


@pytest.mark.parametrize("name", OURS)
def test_our_image_has_the_commands_that_are_started(name: str) -> None:
    program = (SERVICES[name].get("entrypoint") or ["curate"])[0]
    assert (Path(sys.executable).parent / program).exists()
    words = [str(word) for word in SERVICES[name]["command"]]
    if program in ("curate", "prefect"):
        names = [word for word in words if re.fullmatch("[a-z]+", word)]
        said = subprocess.run(
            [Path(sys.executable).parent / program, *names, "--help"], check=True, capture_output=True, text=True,
            env=os.environ | {"COLUMNS": "300", "TERM": "dumb"},
        ).stdout  # fmt: skip
        assert all(word in said for word in words if word.startswith("--"))


def test_only_what_the_image_copies_is_sent_to_its_builder() -> None:
    lines = (INFRA / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    kept = {line[1:] for line in (INFRA / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == copied


def test_every_service_has_a_limit_of_memory_and_says_what_happens_when_it_stops() -> None:
    for name, service in SERVICES.items():
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert service["restart"] == ("on-failure" if name == "buckets" else "unless-stopped"), name


def test_whoever_is_waited_on_by_others_says_when_it_is_ready() -> None:
    servers = {"postgres", "prefect", "minio", "spark", "metrics", "prometheus", "grafana"}
    assert all("healthcheck" in SERVICES[name] for name in servers)
