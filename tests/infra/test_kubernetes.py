"""The Kubernetes manifests: of its schemas, of pods without rights, and reaching nothing that they must not."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from curate.cli import run
from curate.commands.filter import command as filter_command
from tests.conftest import messy_pairs, write_pool

INFRA = Path(__file__).resolve().parents[2] / "infra"
FOLDERS = sorted(path.parent for path in (INFRA / "kubernetes").glob("*/kustomization.yaml"))
PARTS = {folder.name: yaml.safe_load((folder / "kustomization.yaml").read_text()) for folder in FOLDERS}
KUBERNETES = "1.31"
SECRETS = {"curate-database", "curate-storage", "curate-notices"}
FORBIDDEN = ["169.254.169.254", "169.254.170.2", "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1",
             "100.100.100.200", "fd00:ec2::254", "fe80::1", "::1"]  # fmt: skip


def manifests(folder: Path) -> Iterator[dict[str, Any]]:
    """What the files of a kustomization hold, before it changes anything."""
    for name in PARTS[folder.name]["resources"]:
        if (folder / name).is_file():
            yield from yaml.safe_load_all((folder / name).read_text())


ALL = [(folder.name, one) for folder in FOLDERS for one in manifests(folder)]
NAMED = {f"{folder}/{one['kind']}/{one['metadata']['name']}": one for folder, one in ALL}
PODS = {name: one["spec"]["template"] for name, one in NAMED.items() if one["kind"] == "Deployment"}
POLICIES = [one for one in NAMED.values() if one["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize("name", NAMED)
def test_a_manifest_is_of_its_schema(name: str) -> None:
    if NAMED[name]["kind"] == "SparkApplication":
        SparkApplication.model_validate(NAMED[name])
    else:
        kubernetes_validate.validate(NAMED[name], KUBERNETES, strict=True)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Pod(_Strict):
    """What of the operator's v1beta2 we use of a driver or an executor."""

    cores: int
    memory: str
    memoryOverhead: str
    labels: dict[str, str]
    envFrom: list[dict[str, dict[str, str]]]
    securityContext: dict[str, Any]
    serviceAccount: str | None = None
    instances: int | None = None


class _Spec(_Strict):
    type: Literal["Python"]
    mode: Literal["cluster"]
    pythonVersion: Literal["3"]
    sparkVersion: str
    image: str
    imagePullPolicy: str
    mainApplicationFile: str
    arguments: list[str]
    restartPolicy: dict[str, str | int]
    timeToLiveSeconds: int
    sparkConf: dict[str, str]
    driver: _Pod
    executor: _Pod


class SparkApplication(_Strict):
    apiVersion: Literal["sparkoperator.k8s.io/v1beta2"]
    kind: Literal["SparkApplication"]
    metadata: dict[str, str]
    spec: _Spec


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_no_rights_and_says_what_it_needs(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] == 1000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False and rights["capabilities"] == {"drop": ["ALL"]}
        assert rights["readOnlyRootFilesystem"] is True
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted <= {volume["name"] for volume in spec["volumes"]}


def test_the_driver_and_the_executors_are_as_locked_up() -> None:
    spec = NAMED["spark/SparkApplication/curate-filter"]["spec"]
    for pod in (spec["driver"], spec["executor"]):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert pod["securityContext"]["allowPrivilegeEscalation"] is False
    assert spec["sparkVersion"] == version("pyspark")
    assert spec["driver"]["serviceAccount"] == NAMED["spark/ServiceAccount/curate-spark"]["metadata"]["name"]


def test_secrets_are_only_named() -> None:
    named = set(re.findall(r"secret(?:Ref|KeyRef)': {'name': '([\w-]+)'", str(list(NAMED.values()))))
    assert named == SECRETS and all(one["kind"] != "Secret" for one in NAMED.values())
    docs = (INFRA.parent / "docs" / "kubernetes.md").read_text()
    assert all(f"create secret generic {name}" in docs for name in SECRETS)
    written = (INFRA / "kubernetes" / "base" / "environment.env").read_text() + str(list(NAMED.values()))
    assert not re.search(r"(?i)(password|secret_access_key|_token)['\"]?\s*[=:]\s*['\"]?\w", written)


@pytest.mark.parametrize("address", FORBIDDEN)
def test_crawling_and_downloading_pods_reach_no_private_address(address: str) -> None:
    """The metadata service most of all. Addresses are allowed by policies together: one that forbids is not enough."""
    at = ipaddress.ip_address(address)
    for policy in POLICIES:
        picked = str(policy["spec"]["podSelector"])
        if not any(app in picked for app in ("worker", "pool-worker", "'spark'")) and picked != "{}":
            continue
        if "driver" in picked and not at.is_link_local:
            continue  # the API server has an address of the cluster
        for rule in policy["spec"].get("egress", []):
            assert rule["to"], "a rule without `to` allows every address"
            for block in (to["ipBlock"] for to in rule["to"] if "ipBlock" in to):
                net = ipaddress.ip_network(block["cidr"])
                left_out = [ipaddress.ip_network(part) for part in block.get("except", [])]
                reached = at.version == net.version and at in net and not any(at in part for part in left_out)
                assert not reached, policy["metadata"]["name"]


def test_what_no_policy_names_is_forbidden_and_every_pod_has_a_policy() -> None:
    everything = NAMED["base/NetworkPolicy/nothing-unless-named"]["spec"]
    assert everything == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    picked = str([policy["spec"]["podSelector"] for policy in POLICIES])
    apps = {pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in PODS.values()}
    apps |= {NAMED["spark/SparkApplication/curate-filter"]["spec"]["driver"]["labels"]["app.kubernetes.io/name"]}
    assert apps == {"prefect", "worker", "pool-worker", "spark"} and all(f"'{app}'" in picked for app in apps)


def test_commands_ports_and_images_are_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["deploy", str(INFRA / "kubernetes" / "base" / "deployments.yaml"), "--check"]) == 0
    worker, metrics = PODS["base/Deployment/worker"]["spec"]["containers"]
    assert worker["args"] == ["deploy", "/etc/curate/deployments.yaml"]
    assert run([metrics["args"][0], "--help"]) == 0 and "--serve" in capsys.readouterr().out
    environment = dict(line.split("=", 1) for line in (INFRA / "kubernetes/base/environment.env").read_text().split())
    assert environment["CURATE_METRICS"] == metrics["args"][1]
    service = NAMED["base/Service/prefect"]["spec"]["ports"][0]["port"]
    assert environment["PREFECT_API_URL"] == f"http://prefect:{service}/api"
    spark = NAMED["spark/SparkApplication/curate-filter"]["spec"]
    filter_command.make_context("filter", spark["arguments"][1:])  # it knows the options
    assert (INFRA / Path(spark["mainApplicationFile"]).name).exists()
    assert "COPY infra/entrypoint.sh infra/spark_main.py infra/" in (INFRA / "Dockerfile").read_text()
    assert stat.S_IMODE((INFRA / "entrypoint.sh").stat().st_mode) & 0o111 == 0o111
    image = PARTS["base"]["images"][0]
    assert spark["image"] == f"{image['newName']}:{image['newTag']}" and PARTS["pool-worker"]["images"] == [image]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_kustomize_builds_it_and_the_whole_is_of_the_schemas(folder: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here: the manifests were checked one by one, not as kustomize puts them together")
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
    built = list(yaml.safe_load_all(done.stdout))
    for one in built:
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == "curate"
        if one["kind"] != "SparkApplication":
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
    kinds = [one["kind"] for one in built]
    pods = {one["metadata"]["name"] for one in built if one["kind"] == "Deployment"}
    wanted = {"base": {"prefect", "worker"}, "pool-worker": {"prefect", "pool-worker"}, "spark": set()}
    assert pods == wanted[folder.name] and ("PersistentVolumeClaim" in kinds) == (folder.name == "base")
    images = {
        c["image"]
        for one in built
        if one["kind"] == "Deployment"
        for c in one["spec"]["template"]["spec"]["containers"]
    }
    assert images <= {"registry.example.com/curate:0.1.0"}


@pytest.mark.slow
@pytest.mark.spark
def test_the_image_starts_the_driver_as_spark_asks_it_to(tmp_path: Path) -> None:
    """The entry point that Spark's driver pod calls, really run: the same dataset as the command writes here."""
    pool = write_pool(tmp_path / "pool", messy_pairs()[:16])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: small\nfilters: [{image_size: {min_side: 64}}, exact_duplicates]\n")
    plain = ["filter", str(pool), str(tmp_path / "here"), "-r", str(recipe), "--cache", str(tmp_path / "a")]
    assert run([*plain, "--workers", "1"]) == 0
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = {"spark.master": "local[2]", "spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2"}
    conf = [word for name, value in settings.items() for word in ("--conf", f"{name}={value}")]
    work = ["filter", str(pool), str(tmp_path / "out"), "-r", str(recipe), "--engine", "spark"]
    work += ["--cache", str(tmp_path / "b")]
    command = [INFRA / "entrypoint.sh", "driver", *conf, f"local://{INFRA}/spark_main.py", *work]
    environment = {name: value for name, value in os.environ.items() if name != "MASTER"}
    environment |= {"PATH": path, "SPARK_DRIVER_BIND_ADDRESS": "127.0.0.1", "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    same = ["selection.parquet", "shards/00000.tar"]
    assert all((tmp_path / "here" / name).read_bytes() == (tmp_path / "out" / name).read_bytes() for name in same)
