"""Rules and dashboard name metrics, labels and values that the code has."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import NoReturn

import pytest
import yaml
from prometheus_client import CollectorRegistry

from dicomnode.jobs import JobState
from dicomnode.metrics import Metrics
from dicomnode.modelserver.metrics import ServerMetrics
from dicomnode.modelserver.models import Models
from tests.conftest import ROOT
from tests.unit import monitoring
from tests.unit.monitoring import MONITORING, Expression

PINNED = {
    "dicomnode_instances_received_total",
    "dicomnode_store_duration_seconds",
    "dicomnode_stage_duration_seconds",
    "dicomnode_turnaround_seconds",
    "dicomnode_inference_requests_total",
    "dicomnode_inference_in_flight",
    "dicomnode_jobs",
    "dicomnode_deliveries_total",
    "dicomnode_prediction_probability",
    "dicomnode_not_evaluated_total",
    "dicomnode_store_free_bytes",
}
"""What users and other programs rely on."""

FOREIGN = {
    "up": {"job", "instance"},
    "ALERTS": {"alertname", "alertstate", "severity"},
    "node_time_zone_offset_seconds": {"time_zone"},
}
"""Series of Prometheus itself and of node_exporter."""

ADDED = {"job", "instance", "le"}
"""Labels that scraping adds, and the one of buckets."""

CORE_PANELS = {"row", "stat", "table", "timeseries", "heatmap", "state-timeline"}


def node_series() -> dict[str, set[str]]:
    """Every series that the node may have, with its labels."""
    return {
        series: set(collector._labelnames)
        for collector, names in Metrics(CollectorRegistry()).registry._collector_to_names.items()
        for series in names
    }


def no_model(name: str, _base_path: Path) -> NoReturn:
    raise AssertionError(f"{name} is asked for, but nothing is served here")


def server_series() -> dict[str, set[str]]:
    """Every series of the model server, read from its own page after one request."""
    metrics = ServerMetrics(Models(no_model))
    metrics.observe(model="m", api="Predict", entrypoint="REST", status="OK", seconds=0.1)
    return series_of_page(metrics.page().decode())


def retrain_series(tmp_path: Path) -> dict[str, set[str]]:
    path = tmp_path / "retrain.prom"
    monitoring.retrained(path, "exit 0")
    return series_of_page(path.read_text())


def backup_series(tmp_path: Path) -> dict[str, set[str]]:
    path = tmp_path / "backup.prom"
    monitoring.backed_up(path, f'echo \'{{"backup": "{tmp_path}/20260304T051500.000Z"}}\'')
    return series_of_page(path.read_text())


def series_of_page(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if match := re.match(r"(:?[a-z_][\w:]*)(?:\{(.*)\})? ", line):
            labels = re.findall(r"(\w+)=\"", match.group(2) or "")
            found.setdefault(match.group(1), set()).update(labels)
    return found


def recorded_series() -> dict[str, set[str]]:
    """Recording rules, with the labels that they group by or take over from other records."""
    found: dict[str, set[str]] = {}
    for rule in monitoring.rules():
        if "record" in rule:
            labels = monitoring.grouping_labels(rule["expr"])
            taken = [found.get(name, set()) for name in monitoring.metric_names(rule["expr"])]
            found[rule["record"]] = labels.union(*taken)
    return found


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    folder = tmp_path_factory.mktemp("series")
    own = node_series() | server_series() | recorded_series()
    return own | retrain_series(folder) | backup_series(folder) | FOREIGN


def expressions() -> list[Expression]:
    return [*monitoring.panel_expressions(), *monitoring.rule_expressions()]


def test_every_metric_that_is_read_exists(known: dict[str, set[str]]) -> None:
    for expression in expressions():
        names = monitoring.metric_names(expression.text)
        assert names, f"{expression.place}: no metric was found in {expression.text}"
        assert names <= set(known), f"{expression.place}: {names - set(known)}"


def test_every_label_that_is_matched_exists(known: dict[str, set[str]]) -> None:
    for expression in expressions():
        for name, label in monitoring.labels_by_metric(expression.text):
            assert label in known[name] | ADDED, f"{expression.place}: {name} has no {label}"


def test_every_label_that_is_grouped_by_exists(known: dict[str, set[str]]) -> None:
    for expression in expressions():
        read = monitoring.metric_names(expression.text)
        have = set().union(*(known[name] for name in read)) | ADDED
        asked = monitoring.grouping_labels(expression.text)
        assert asked <= have, f"{expression.place}: {asked - have}"


@pytest.mark.parametrize(
    ("text", "names", "labels"),
    [
        ('sum by (le) (rate(a_bucket{b="c"}[5m]))', {"a_bucket"}, {("a_bucket", "b")}),
        ("a:b:c > 2 * d or absent(e) unless on (x) f", {"a:b:c", "d", "e", "f"}, set()),
        (
            ':t:count{s=~"x", y!="z"} offset 1d',
            {":t:count"},
            {(":t:count", "s"), (":t:count", "y")},
        ),
        ("a / on (m) group_left () (b > 0)", {"a", "b"}, set()),
    ],
)
def test_the_reader_of_expressions_finds_metrics_and_labels(
    text: str, names: set[str], labels: set[tuple[str, str]]
) -> None:
    assert monitoring.metric_names(text) == names
    assert set(monitoring.labels_by_metric(text)) == labels


def test_values_of_labels_in_rules_and_panels_are_ones_that_the_code_gives() -> None:
    """A panel of outcome="Stored" would be empty and nobody would know."""
    files = [*(ROOT / "dicomnode").rglob("*.py"), monitoring.RETRAIN, monitoring.NIGHTLY]
    code = "\n".join(path.read_text() for path in files)
    text = "\n".join(expression.text for expression in expressions())
    states = set(re.findall(r'state!?="(\w+)"', text)) - {"firing"}
    assert states <= {state.value for state in JobState}
    for value in re.findall(r'(?:stage|outcome)(?:!?=|!~)"([\w|]+)"', text):
        for one in value.split("|"):
            assert f'"{one}"' in code, one


def test_every_pinned_metric_is_on_the_dashboard() -> None:
    read = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for expression in monitoring.panel_expressions()
        for name in monitoring.metric_names(expression.text)
    }
    assert read >= PINNED


def test_every_metric_of_the_node_is_on_the_dashboard() -> None:
    text = "\n".join(expression.text for expression in monitoring.panel_expressions())
    for family in Metrics(CollectorRegistry()).registry.collect():
        assert family.name in text, family.name


def test_every_recording_rule_is_used() -> None:
    used = {
        name for expression in expressions() for name in monitoring.metric_names(expression.text)
    }
    assert set(recorded_series()) <= used


def test_panels_are_grafanas_own_and_say_what_they_show() -> None:
    assert {panel["type"] for panel in monitoring.dashboard()["panels"]} <= CORE_PANELS
    for panel in monitoring.panels():
        assert panel["title"]
        assert panel["description"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references), panel["title"]


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    every = monitoring.dashboard()["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    for panel in every:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24, panel["title"]
    for one, other in combinations(every, 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_latency_is_shown_as_heatmap_and_quantile_for_every_stage() -> None:
    heatmaps = [panel for panel in monitoring.panels() if panel["type"] == "heatmap"]
    for stage in ("decode", "preprocess", "inference", "report", "delivery"):
        (panel,) = [one for one in heatmaps if f'stage="{stage}"' in one["targets"][0]["expr"]]
        assert panel["targets"][0]["format"] == "heatmap"


def test_variables_in_expressions_are_declared() -> None:
    declared = {variable["name"] for variable in monitoring.dashboard()["templating"]["list"]}
    built_in = {"__interval", "__rate_interval", "__range"}
    for expression in monitoring.panel_expressions():
        used = set(re.findall(r"\$(\w+)", expression.text))
        assert used <= declared | built_in, expression.place


def test_grafana_is_given_the_data_source_and_the_folder_of_the_dashboard() -> None:
    folder = MONITORING / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    interval = monitoring.scrape_config("prometheus.yml")["global"]["scrape_interval"]
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == interval
    (provider,) = yaml.safe_load((folder / "dashboards" / "dicomnode.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
