"""Prometheus's own tools, and kubectl's, on the shipped files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import require_program
from tests.unit.monitoring import MONITORING, RULES

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
    assert sorted(set(kinds)) == ["PrometheusRule", "Service", "ServiceMonitor"]
    assert kinds.count("ServiceMonitor") == kinds.count("Service") == 3
