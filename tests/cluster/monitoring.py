"""Figures of running pods: their own metrics pages, and the Prometheus that scrapes them."""

from __future__ import annotations

import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.cluster import Cluster
from tests.cluster.pod import Pod
from tests.peers.prometheus import Prometheus

Sample = tuple[dict[str, str], float]


def fetched(cluster: Cluster, pod: Pod, port: int, path: str) -> str:
    """What a pod answers a machine of the cluster over HTTP."""

    def get() -> str:
        with urllib.request.urlopen(f"http://{pod.address}:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    return cluster.inside(get)


def samples(cluster: Cluster, pod: Pod, metric: str) -> list[Sample]:
    """Labels and values of a metric of a node or a model server."""
    port, path = _PAGES[pod.labels["app.kubernetes.io/component"]]
    text = fetched(cluster, pod, port, path)
    return [
        (dict(sample.labels), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric
    ]


def total(cluster: Cluster, pod: Pod, metric: str, **labels: str) -> float:
    """The sum over the samples with these labels."""
    return sum(
        value
        for found, value in samples(cluster, pod, metric)
        if all(found.get(name) == expected for name, expected in labels.items())
    )


_PAGES = {"node": (8080, "/metrics"), "inference": (8501, "/monitoring/prometheus/metrics")}


class ClusterPrometheus(Prometheus):
    """The Prometheus of the cluster, asked by a machine of it."""

    def __init__(self, cluster: Cluster, pod: Pod) -> None:
        super().__init__(9090)
        self._url = f"http://{pod.address}:9090"
        self._cluster = cluster

    def get(self, path: str, **parameters: str | float) -> Any:
        return self._cluster.inside(lambda: super(ClusterPrometheus, self).get(path, **parameters))
