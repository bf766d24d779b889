"""Names, ports, paths and arguments agree between manifests, settings and programs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import QueuePool

from dicomnode import daemon
from dicomnode.config import Settings, load
from dicomnode.dimse import scp
from dicomnode.modelserver.options import Options, parse
from dicomnode.storage.database import open_database
from tests.conftest import ROOT
from tests.peers.manifests import (
    DEPLOY,
    VARIANTS,
    Cluster,
    Object,
    Template,
    cluster,
    container,
    every_container,
)
from tests.unit.network_policies import selects

MANUAL = ROOT / "docs" / "operations" / "kubernetes.md"
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def node_settings(found: Cluster, folder: Path, environment: dict[str, str] | None = None) -> Any:
    path = folder / "node.toml"
    path.write_text(found.one("ConfigMap", "node-config")["data"]["node.toml"])
    return load(path, environment=environment or {})


def model_server(found: Cluster) -> Options:
    given = container(found.template("inference"))
    arguments = [each for each in given["args"] if not each.startswith("--monitoring_config_file")]
    return parse(arguments)


@every_variant
def test_each_service_selects_a_workload_and_a_port_of_it(variant: str) -> None:
    found = cluster(variant)
    for service in found.of("Service"):
        name = service["metadata"]["name"]
        targets = found.selected({"matchLabels": service["spec"]["selector"]})
        assert len(targets) == 1, name
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            assert target in targets[0].ports or target in targets[0].ports.values(), (name, port)


@every_variant
def test_each_workload_selects_its_own_pods_and_no_others(variant: str) -> None:
    found = cluster(variant)
    for template in found.templates():
        selector = template.owner["spec"].get("selector")
        if selector is not None:
            assert [each.name for each in found.selected(selector)] == [template.name]
    for budget in found.of("PodDisruptionBudget"):
        (template,) = found.selected(budget["spec"]["selector"])
        assert budget["spec"]["maxUnavailable"] == 1, "a drain must be able to go on"
        assert template.name == budget["metadata"]["name"]


def test_probes_name_ports_that_the_container_has() -> None:
    for variant, template, given in every_container():
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            for how in ("httpGet", "tcpSocket"):
                probe = given.get(kind, {}).get(how)
                if probe is not None:
                    assert probe["port"] in template.ports, (variant, template.name, kind)


@every_variant
def test_servers_have_probes_and_the_nodes_are_the_documented_ones(variant: str) -> None:
    found = cluster(variant)
    for template in found.templates():
        if template.owner["kind"] in ("Deployment", "StatefulSet"):
            for given in template.spec["containers"]:
                assert {"readinessProbe", "livenessProbe"} <= set(given), template.name
    node = container(found.template("node"))
    assert node["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert node["livenessProbe"]["httpGet"]["path"] == "/healthz"
    inference = container(found.template("inference"))
    name = model_server(found).model_name
    for kind in ("startupProbe", "readinessProbe"):
        assert inference[kind]["httpGet"]["path"] == f"/v1/models/{name}/metadata"


@every_variant
def test_what_is_mounted_is_there(variant: str) -> None:
    found = cluster(variant)
    manual = MANUAL.read_text()
    claims = {each["metadata"]["name"] for each in found.of("PersistentVolumeClaim")}
    maps = {each["metadata"]["name"] for each in found.of("ConfigMap")}
    for template in found.templates()[:-1]:
        for volume in template.spec.get("volumes", []):
            for kind, body in (each for each in volume.items() if each[0] != "name"):
                sources = body["sources"] if kind == "projected" else [{kind: body}]
                for source in sources:
                    match source:
                        case {"persistentVolumeClaim": {"claimName": name}}:
                            assert name in claims, (template.name, name)
                        case {"configMap": {"name": name, **rest}}:
                            assert name in maps or rest.get("optional"), (template.name, name)
                        case {"secret": {"secretName": name}}:
                            assert f"create secret generic {name} " in manual, name
                        case {"emptyDir": _}:
                            pass
                        case _:
                            raise AssertionError((template.name, source))
        names = {volume["name"] for volume in template.spec.get("volumes", [])}
        names |= {
            each["metadata"]["name"]
            for each in template.owner["spec"].get("volumeClaimTemplates", [])
        }
        mounts = [mount for each in template.containers for mount in each.get("volumeMounts", [])]
        assert {mount["name"] for mount in mounts} <= names, template.name
        for given in template.containers:
            for variable in given.get("env", []):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                if reference is not None:
                    created = rf"create secret generic {reference['name']} [^\n]*\\?\n?[^\n]*"
                    (command,) = re.findall(created, manual)
                    assert reference["key"] in command


@every_variant
def test_every_claim_knows_what_is_behind_it(variant: str) -> None:
    found = cluster(variant)
    volumes = {each["metadata"]["name"]: each for each in found.of("PersistentVolume")}
    for claim in found.of("PersistentVolumeClaim"):
        name, spec = claim["metadata"]["name"], claim["spec"]
        if name != "backup" and spec["storageClassName"] != "storage-nfs":
            assert spec["storageClassName"] == "local-path", name
            assert spec["accessModes"] == ["ReadWriteOnce"], name
            continue
        volume = volumes.pop(spec["volumeName"])["spec"]
        assert volume["claimRef"] == {"namespace": "dicomnode", "name": name}
        # a backup is of another disk than what it is of
        expected = "/srv/dicomnode-backup" if name == "backup" else f"/srv/dicomnode/{name}"
        assert volume["nfs"]["path"] == expected
        assert volume["storageClassName"] == spec["storageClassName"]
        assert volume["capacity"] == spec["resources"]["requests"]
        assert volume["accessModes"] == spec["accessModes"] == ["ReadWriteMany"]
        assert volume["persistentVolumeReclaimPolicy"] == "Retain"
    assert not volumes


@every_variant
def test_settings_of_the_node_fit_its_pod_and_the_model_servers(
    variant: str, tmp_path: Path
) -> None:
    found = cluster(variant)
    settings: Settings = node_settings(found, tmp_path)
    template, served = found.template("node"), model_server(found)
    mounts = {each["mountPath"]: each for each in container(template)["volumeMounts"]}
    assert "readOnly" not in mounts[str(settings.storage.root)]
    assert settings.serving.model_base_path == served.model_base_path
    assert mounts[str(served.model_base_path.parent)]["readOnly"] is True
    assert settings.serving.model_name == served.model_name
    assert settings.serving.engine == "external"
    (target,) = settings.serving.targets
    name, _, port = target.removeprefix("dns:///").partition(":")
    service, _, domain = name.partition(".")
    assert domain == "dicomnode.svc.cluster.local.", "a shorter name reaches the machines' own DNS"
    assert int(port) == served.port
    spec = found.one("Service", service)["spec"]
    assert spec["clusterIP"] == "None"
    assert served.port in [each["port"] for each in spec["ports"]]
    assert template.ports == {"dicom": settings.dimse.port, "http": settings.web.port}
    assert settings.dimse.host == settings.web.host == "0.0.0.0"
    pod = container(found.template("inference"))
    assert found.template("inference").ports == {"grpc": served.port, "rest": served.rest_api_port}
    if pod["command"][0] == "dicomnode":
        assert served.host == "0.0.0.0", "ours listens on loopback by default"


@pytest.mark.parametrize(("variant", "machines"), [("k3s-jetson", 8), ("k3s-amd64", 20)])
def test_postgresql_has_connections_for_the_nodes_of_a_large_cluster(
    variant: str, machines: int
) -> None:
    """What each node keeps for ever, and twenty for a burst, a training and a backup."""
    arguments = container(cluster(variant).template("postgres"))["args"]
    (maximum,) = [each for each in arguments if each.startswith("max_connections=")]
    kept = open_database(ROOT, "postgresql+psycopg://node@database/dicomnode").engine.pool
    assert isinstance(kept, QueuePool)
    assert int(maximum.partition("=")[2]) >= machines * kept.size() + 20


@every_variant
def test_sqlite_has_one_node_on_a_local_disk_and_postgresql_any_number(
    variant: str, tmp_path: Path
) -> None:
    found = cluster(variant)
    node = found.template("node")
    variables = {each["name"] for each in container(node)["env"]}
    shared = "DICOMNODE_STORAGE__DATABASE_URL" in variables
    strategy = node.owner["spec"]["strategy"]["type"]
    assert strategy == ("RollingUpdate" if shared else "Recreate")
    assert shared or node.replicas == 1
    store = found.one("PersistentVolumeClaim", "store")["spec"]["storageClassName"]
    assert shared or store == "local-path", "SQLite's journal must not lie on NFS"
    assert node_settings(found, tmp_path).storage.database_url.get_secret_value() == ""


def drain(template: Template, seconds: float) -> float:
    """From the end's announcement to the last moment that the program may need."""
    stop: Object = container(template)["lifecycle"]["preStop"]
    return float(stop["sleep"]["seconds"]) + seconds


@every_variant
def test_pods_have_the_time_to_end_in_order(variant: str) -> None:
    found = cluster(variant)
    assert scp.StorageScp.stop.__defaults__ == (10.0,)
    node = found.template("node")
    needed = drain(node, 10.0 + 1.0 + daemon.STOP_SECONDS)
    assert node.spec["terminationGracePeriodSeconds"] >= needed + 10
    inference, served = found.template("inference"), model_server(found)
    needed = drain(inference, served.drain_seconds + served.drain_seconds + 5.0)
    assert inference.spec["terminationGracePeriodSeconds"] >= needed + 10


@every_variant
def test_a_model_server_that_ends_is_not_asked_any_more(variant: str, tmp_path: Path) -> None:
    """It is left out of DNS at once; who asks looks again, and a name server remembers for 5 s."""
    found = cluster(variant)
    looked_up = node_settings(found, tmp_path).serving.resolve_seconds
    assert drain(found.template("inference"), 0.0) >= looked_up + 5.0 + 1.0


@every_variant
def test_the_number_of_machines_is_one_number(variant: str) -> None:
    """One board more is `machines` in site.yaml."""
    found = cluster(variant)
    text = (DEPLOY / "overlays" / VARIANTS[variant][0] / "site.yaml").read_text()
    machines = yaml.safe_load(text)["spec"]["machines"]
    assert found.template("inference").replicas == machines
    assert found.template("node").replicas == machines
    others = [each for each in found.templates() if each.name not in ("inference", "node")]
    counts = {each.owner["spec"].get("replicas", 1) for each in others}
    assert counts <= {0, 1}, "nothing else counts machines"


@every_variant
@pytest.mark.parametrize("name", ["inference", "node"])
def test_what_every_machine_has_is_on_machines_of_their_own(variant: str, name: str) -> None:
    """The address of a machine without a node would answer no modality."""
    template = cluster(variant).template(name)
    if template.replicas == 1 and name == "node":
        return
    apart = template.spec["affinity"]["podAntiAffinity"]
    (term,) = apart["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert selects(term["labelSelector"], template.labels)
    rolling = template.owner["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 0, "maxUnavailable": 1}, "there is no machine for one more"
