"""What may speak to what in the cluster: exactly the flows of these tables, and no other."""

from __future__ import annotations

import itertools
import tomllib

import pytest

from dicomnode.config import load
from tests.peers.manifests import DEPLOY, VARIANTS, Cluster, cluster, workers
from tests.unit.network_policies import End, Outside, Pod, allows, selects

MODALITY = Outside("modality", "10.0.20.7")
PACS = Outside("pacs", "10.0.30.10")
BESIDE_PACS = Outside("beside the pacs", "10.0.30.11")
# site.yaml lets nobody ask over REST: an address that no packet comes from
REST_CLIENT = Outside("rest client", "192.0.2.1")
SERVER = Outside("api server", "10.0.10.11")
BACKUP_SERVER = "10.0.10.12"
INTERNET = Outside("internet", "8.8.8.8")
DNS = Pod("dns", {"k8s-app": "kube-dns"}, namespace="kube-system")
STRANGER = Pod("stranger", {"app.kubernetes.io/part-of": "dicomnode"})
NEIGHBOUR = Pod("neighbour", {"app.kubernetes.io/component": "node"}, namespace="default")
OTHERS: tuple[End, ...] = (
    MODALITY,
    PACS,
    BESIDE_PACS,
    REST_CLIENT,
    SERVER,
    INTERNET,
    DNS,
    STRANGER,
    NEIGHBOUR,
)

Flow = tuple[str, str, str]

BASE: set[Flow] = {
    ("modality", "node", "TCP 11112"),
    ("rest client", "inference", "TCP 8501"),
    ("node", "inference", "TCP 8500"),
    ("node", "pacs", "TCP 4242"),
    ("node", "dns", "UDP 53"),
    ("node", "dns", "TCP 53"),
    ("training", "training", "TCP 8470"),
    ("training", "dns", "UDP 53"),
    ("training", "dns", "TCP 53"),
}
MONITORING: set[Flow] = {
    ("prometheus", "node", "TCP 8080"),
    ("prometheus", "inference", "TCP 8501"),
    ("prometheus", "exporter", "TCP 9100"),
    ("prometheus", "dns", "UDP 53"),
    ("prometheus", "dns", "TCP 53"),
    ("grafana", "prometheus", "TCP 9090"),
    ("grafana", "dns", "UDP 53"),
    ("grafana", "dns", "TCP 53"),
}
POSTGRES: set[Flow] = {
    ("node", "database", "TCP 5432"),
    ("training", "database", "TCP 5432"),
}
RETRAIN_ON_POSTGRES: set[Flow] = {
    ("retrain", "database", "TCP 5432"),
    ("retrain", "dns", "UDP 53"),
    ("retrain", "dns", "TCP 53"),
}
BACKUP_ON_POSTGRES: set[Flow] = {
    ("backup", "database", "TCP 5432"),
    ("backup", "dns", "UDP 53"),
    ("backup", "dns", "TCP 53"),
}
SUBMIT: set[Flow] = {("submit", "api server", "TCP 6443")}

FLOWS: dict[str, set[Flow]] = {
    "single-node": BASE | MONITORING,
    # SQLite is a file: nobody is asked, and nobody may be
    "single-node with backup": BASE | MONITORING,
    "k3s-jetson": BASE | MONITORING | POSTGRES | RETRAIN_ON_POSTGRES,
    "k3s-jetson with backup": (
        BASE | MONITORING | POSTGRES | RETRAIN_ON_POSTGRES | BACKUP_ON_POSTGRES
    ),
    "k3s-jetson with workers": BASE | MONITORING | POSTGRES | SUBMIT,
    "k3s-amd64": BASE | MONITORING | POSTGRES | SUBMIT,
    "k3s-amd64 with TensorFlow Serving": BASE | MONITORING | POSTGRES | SUBMIT,
}
PORTS = (22, 53, 80, 443, 2049, 2375, 4242, 6443, 8080, 8404, 8470, 8888, 10250)
"""Beside those that the containers name."""


def flows(found: Cluster) -> set[Flow]:
    """Everything that the policies let through between pods of ours, or them and anybody."""
    ours = [template.pod() for template in found.templates()]
    ports = {*PORTS, *(port for pod in ours for port in pod.ports.values())}
    pairs = [*itertools.product(ours, [*ours, *OTHERS]), *itertools.product(OTHERS, ours)]
    policies = found.of("NetworkPolicy")
    return {
        (source.name, target.name, f"{protocol} {port}")
        for source, target in pairs
        for port, protocol in itertools.product(ports, ("TCP", "UDP"))
        if allows(policies, source, target, port, protocol)
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_flows_of_the_table_are_allowed_and_no_other(variant: str) -> None:
    assert flows(cluster(variant)) == FLOWS[variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_reaches_the_internet(variant: str) -> None:
    found = cluster(variant)
    policies = found.of("NetworkPolicy")
    for template in found.templates():
        for port in range(1, 1025):
            assert not allows(policies, template.pod(), INTERNET, port), (template.name, port)


def test_one_policy_less_is_seen() -> None:
    found = cluster("k3s-amd64")
    for policy in found.of("NetworkPolicy"):
        without = Cluster("less", [each for each in found.objects if each is not policy])
        assert flows(without) != FLOWS["k3s-amd64"], policy["metadata"]["name"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_policy_selects_somebody_and_each_of_its_peers_is_somebody(variant: str) -> None:
    found = cluster(variant)
    for policy in found.of("NetworkPolicy"):
        name, spec = policy["metadata"]["name"], policy["spec"]
        assert found.selected(spec["podSelector"]), name
        for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
            assert rule["ports"], name
            for peer in [*rule.get("from", []), *rule.get("to", [])]:
                selector = peer.get("podSelector")
                if "namespaceSelector" in peer:
                    assert selects(selector, DNS.labels), name
                elif selector is not None:
                    assert found.selected(selector), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_policy_keeps_an_address_that_an_overlay_should_have_replaced(variant: str) -> None:
    for policy in cluster(variant).of("NetworkPolicy"):
        assert "192.0.2.0/32" not in str(policy), policy["metadata"]["name"]
    for volume in cluster(variant).of("PersistentVolume"):
        backup = volume["metadata"]["name"] == "dicomnode-backup"
        assert volume["spec"]["nfs"]["server"] == (BACKUP_SERVER if backup else SERVER.address)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_node_may_go_where_its_settings_send_it(
    variant: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = cluster(variant)
    path = tmp_path_factory.mktemp("config") / "node.toml"
    path.write_text(found.one("ConfigMap", "node-config")["data"]["node.toml"])
    node, policies = found.template("node").pod(), found.of("NetworkPolicy")
    destinations = load(path, environment={}).destinations
    assert destinations
    for each in destinations:
        assert each.host and each.port
        assert allows(policies, node, Outside(each.name, each.host), each.port)


def test_the_workers_of_a_retraining_are_among_those_that_the_policies_know() -> None:
    text = (DEPLOY / "overlays" / "k3s-amd64" / "submit.toml").read_text()
    assert tomllib.loads(text)["cluster"]["namespace"] == "dicomnode"
    assert workers().component == "training"
