"""Prometheus's own tools, and kubectl's, on the shipped files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import require_program
from tests.peers.manifests import cluster
from tests.unit.monitoring import MONITORING, RULES
from tests.unit.network_policies import Pod, allows

pytestmark = pytest.mark.peer("promtool")


def ran(program: str, *arguments: str) -> str:
    """What a program printed; a failure shows it."""
    done = subprocess.run(
        [require_program(program), *arguments],
        cwd=MONITORING,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-kubernetes.yml"])
def test_promtool_accepts_the_scrape_config(name: str) -> None:
    ran("promtool", "check", "config", name)


def test_promtool_accepts_the_rules_without_a_complaint() -> None:
    ran("promtool", "check", "rules", "--lint-fatal", *map(str, RULES))


@pytest.mark.parametrize(
    "path", sorted((MONITORING / "rules" / "tests").glob("*.yml")), ids=lambda p: p.name
)
def test_each_alert_fires_when_it_should_and_not_otherwise(path: Path) -> None:
    ran("promtool", "test", "rules", str(path))


def test_kustomize_packs_the_files_as_they_are() -> None:
    rendered = list(yaml.safe_load_all(ran("kubectl", "kustomize", ".")))
    maps = {
        document["metadata"]["name"].rpartition("-")[0]: document["data"]
        for document in rendered
        if document["kind"] == "ConfigMap"
    }
    config = (MONITORING / "prometheus-kubernetes.yml").read_text()
    assert maps["prometheus-config"] == {"prometheus.yml": config}
    assert maps["prometheus-rules"] == {path.name: path.read_text() for path in RULES}
    assert set(maps["grafana-dashboards"]) == {"dicomnode.json"}
    assert {document["metadata"]["namespace"] for document in rendered} == {"dicomnode"}


def test_kustomize_renders_the_variant_for_the_prometheus_operator() -> None:
    rendered = list(yaml.safe_load_all(ran("kubectl", "kustomize", "operator")))
    kinds = [document["kind"] for document in rendered]
    assert sorted(set(kinds)) == ["NetworkPolicy", "PrometheusRule", "Service", "ServiceMonitor"]
    assert kinds.count("ServiceMonitor") == kinds.count("Service") == 3


def test_the_operators_prometheus_is_let_in_to_figures_and_nobody_else_of_its_namespace() -> None:
    rendered = list(yaml.safe_load_all(ran("kubectl", "kustomize", "operator")))
    added = [document for document in rendered if document["kind"] == "NetworkPolicy"]
    found = cluster("k3s-jetson")
    policies = [*found.of("NetworkPolicy"), *added]
    prometheus = Pod("prometheus", {"app.kubernetes.io/name": "prometheus"}, "monitoring")
    grafana = Pod("grafana", {"app.kubernetes.io/name": "grafana"}, "monitoring")
    for name, port in (("node", 8080), ("inference", 8501), ("exporter", 9100)):
        pod = found.template(name).pod()
        assert allows(policies, prometheus, pod, port), name
        assert not allows(policies, grafana, pod, port), name
        assert not allows(found.of("NetworkPolicy"), prometheus, pod, port), "it needs no policy"
    assert not allows(policies, prometheus, found.template("node").pod(), 11112)
    assert not allows(policies, prometheus, found.template("postgres").pod(), 5432)


LOOKED_UP = """\
ip link set lo up
mount --bind {folder}/resolv.conf /etc/resolv.conf
dnsmasq --conf-file=/dev/null --user=root --pid-file={folder}/pid --no-resolv --no-hosts \\
    --addn-hosts={folder}/hosts
exec promtool check service-discovery {config} {job} --timeout=2s
"""
"""In namespaces of its own, where the cluster's DNS is a dnsmasq on loopback."""


@pytest.mark.parametrize(
    ("job", "service", "port"),
    [
        ("dicomnode", "node-metrics", 8080),
        ("model-server", "inference-metrics", 8501),
        ("machine", "exporter-metrics", 9100),
    ],
)
def test_every_replica_that_dns_names_is_a_target(
    tmp_path: Path, job: str, service: str, port: int
) -> None:
    for program in ("dnsmasq", "promtool", "ip", "mount"):
        require_program(program)
    unshare = [require_program("unshare"), "--mount", "--net", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("namespaces of its own need root")
    name = f"{service}.dicomnode.svc.cluster.local"
    (tmp_path / "hosts").write_text(f"10.42.0.7 {name}\n10.42.1.9 {name}\n10.42.2.2 other\n")
    search = "dicomnode.svc.cluster.local svc.cluster.local cluster.local"
    (tmp_path / "resolv.conf").write_text(
        f"nameserver 127.0.0.1\nsearch {search}\noptions ndots:5\n"
    )
    config = MONITORING / "prometheus-kubernetes.yml"
    script = LOOKED_UP.format(folder=tmp_path, config=config, job=job)
    found = subprocess.run(
        [*unshare, "sh", "-ec", script], capture_output=True, text=True, timeout=60, check=True
    )
    targets = {target["labels"]["__address__"] for target in json.loads(found.stdout)}
    assert targets == {f"10.42.0.7:{port}", f"10.42.1.9:{port}"}
