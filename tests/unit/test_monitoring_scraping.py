"""What is scraped: on one machine, in the cluster, with the Prometheus Operator."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from dicomnode.config import ServingSettings, WebSettings
from dicomnode.modelserver.rest_api import PROMETHEUS_PATH
from tests.unit import monitoring
from tests.unit.monitoring import MONITORING


def jobs(name: str) -> dict[str, dict[str, Any]]:
    return {job["job_name"]: job for job in monitoring.scrape_config(name)["scrape_configs"]}


def test_one_machine_is_scraped_where_the_settings_default_to() -> None:
    found = jobs("prometheus.yml")
    web = WebSettings()
    assert found["dicomnode"]["static_configs"] == [{"targets": [f"{web.host}:{web.port}"]}]
    assert found["model-server"]["metrics_path"] == PROMETHEUS_PATH
    assert "rest_port" in ServingSettings.model_fields


def test_tensorflow_serving_is_told_the_path_that_is_scraped() -> None:
    assert f'path: "{PROMETHEUS_PATH}"' in (MONITORING / "tf-serving-monitoring.config").read_text()


def test_the_cluster_is_scraped_under_the_same_job_names() -> None:
    assert set(jobs("prometheus-kubernetes.yml")) == set(jobs("prometheus.yml"))
    single, cluster = jobs("prometheus.yml"), jobs("prometheus-kubernetes.yml")
    for name in single:
        assert single[name].get("metrics_path") == cluster[name].get("metrics_path"), name


def services() -> dict[str, dict[str, Any]]:
    text = (MONITORING / "kubernetes" / "services.yaml").read_text()
    return {document["metadata"]["name"]: document for document in yaml.safe_load_all(text)}


def looked_up(lookup: dict[str, Any]) -> dict[str, Any]:
    """The Service of a name in full, which no search list and no other name server has to end."""
    (name,) = lookup["names"]
    service, _, rest = name.partition(".")
    assert rest == "dicomnode.svc.cluster.local."
    return services()[service]


def test_the_names_that_are_looked_up_are_headless_services_with_that_port() -> None:
    for name, job in jobs("prometheus-kubernetes.yml").items():
        for lookup in job.get("dns_sd_configs", []):
            spec = looked_up(lookup)["spec"]
            assert spec["clusterIP"] == "None", name
            assert spec["publishNotReadyAddresses"] is True, name
            assert [port["port"] for port in spec["ports"]] == [lookup["port"]], name


def test_services_are_valid_in_the_last_five_versions_of_kubernetes() -> None:
    validator = pytest.importorskip("kubernetes_validate")
    newest = int(validator.latest_version().split(".")[1])
    for minor in range(newest - 4, newest + 1):
        for service in services().values():
            validator.validate(service, f"1.{minor}", strict=True)


def monitors() -> dict[str, dict[str, Any]]:
    text = (MONITORING / "operator" / "monitors.yaml").read_text()
    return {document["metadata"]["name"]: document for document in yaml.safe_load_all(text)}


def test_service_monitors_scrape_what_the_plain_config_scrapes() -> None:
    cluster = jobs("prometheus-kubernetes.yml")
    assert set(monitors()) == set(cluster) - {"prometheus"}
    for name, monitor in monitors().items():
        (lookup,) = cluster[name]["dns_sd_configs"]
        service = looked_up(lookup)
        assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] == service["spec"]["ports"][0]["name"]
        assert endpoint["path"] == cluster[name].get("metrics_path", "/metrics")
        assert {"targetLabel": "job", "replacement": name} in endpoint["relabelings"]


def test_the_operators_rules_are_the_rules() -> None:
    document = yaml.safe_load((MONITORING / "operator" / "prometheusrule.yaml").read_text())
    groups = [
        group for path in monitoring.RULES for group in yaml.safe_load(path.read_text())["groups"]
    ]
    message = "run deploy/monitoring/operator/render_rules.py"
    assert document["spec"]["groups"] == groups, message


def test_the_config_map_holds_every_rules_file() -> None:
    document = yaml.safe_load((MONITORING / "kustomization.yaml").read_text())
    (made,) = [one for one in document["configMapGenerator"] if one["name"] == "prometheus-rules"]
    assert set(made["files"]) == {f"rules/{path.name}" for path in monitoring.RULES}
