"""Every object of every overlay: valid, confined, bounded, and of a known image."""

from __future__ import annotations

import copy
import functools
import json
import re
import tomllib
from typing import Any

import kubernetes_validate
import kubernetes_validate.utils
import pytest
import yaml

from tests.conftest import ROOT
from tests.peers.manifests import (
    DEPLOY,
    EXAMPLE,
    VARIANTS,
    Object,
    Template,
    bytes_of,
    cluster,
    cores_of,
    every_container,
)
from trainer.submit import render
from trainer.submit.settings import load

VERSIONS = list(dict.fromkeys(kubernetes_validate.utils.all_versions()))[-5:]
OURS = {"node", "model-server", "trainer", "trainer-l4t", "jupyter", "gpu-check", "client"}
OTHERS = {
    "postgres",
    "prom/prometheus",
    "prom/node-exporter",
    "grafana/grafana",
    "tensorflow/serving",
}


@functools.cache
def different_objects() -> list[Object]:
    """Of all variants; most are the same in several."""
    objects = [made for variant in VARIANTS for made in cluster(variant).objects]
    return list({json.dumps(made, sort_keys=True): made for made in objects}.values())


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_for_the_last_five_versions_of_kubernetes(version: str) -> None:
    for made in different_objects():
        kubernetes_validate.validate(made, version, strict=True)


def test_the_validator_sees_a_mistake_in_an_object() -> None:
    made = copy.deepcopy(cluster("single-node").one("Deployment", "node"))
    made["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(made, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_is_in_the_namespace_and_says_what_it_belongs_to(variant: str) -> None:
    everywhere = {"Namespace", "StorageClass", "PersistentVolume", "RuntimeClass"}
    names = set()
    for made in cluster(variant).objects:
        kind, metadata = made["kind"], made["metadata"]
        expected = None if kind in everywhere else "dicomnode"
        assert metadata.get("namespace") == expected, (kind, metadata["name"])
        assert kind != "Site", "the site's addresses are no object"
        assert (kind, metadata["name"]) not in names
        names.add((kind, metadata["name"]))
        if kind not in ("ConfigMap", "ServiceAccount", "Role", "RoleBinding"):
            labels = metadata["labels"]
            assert labels["app.kubernetes.io/part-of"] == "dicomnode", (kind, metadata["name"])
            assert kind == "Namespace" or labels["app.kubernetes.io/component"]


def refusals(template: Template, container: Object) -> list[str]:
    """What the *restricted* profile, and we, would not have."""
    pod, own = template.spec.get("securityContext", {}), container.get("securityContext", {})
    volumes = template.spec.get("volumes", [])
    kinds = {key for volume in volumes for key in volume if key != "name"}
    known = {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected"}
    checks = {
        "runs as root": pod.get("runAsNonRoot") is True and pod.get("runAsUser", 0) > 0,
        "has no group": pod.get("runAsGroup", 0) > 0,
        "has no seccomp profile": pod.get("seccompProfile") == {"type": "RuntimeDefault"},
        "may gain privileges": own.get("allowPrivilegeEscalation") is False,
        "is privileged": not own.get("privileged", False),
        "writes to its root": own.get("readOnlyRootFilesystem") is True,
        "has capabilities": own.get("capabilities") == {"drop": ["ALL"]},
        "shares its machine": not any(
            template.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")
        ),
        "takes a port of its machine": not any(
            "hostPort" in port for port in container.get("ports", [])
        ),
        f"mounts {sorted(kinds - known)}": kinds <= known,
        "is told of every Service": template.spec.get("enableServiceLinks") is False,
    }
    return [name for name, passed in checks.items() if not passed]


def test_every_container_runs_confined() -> None:
    for variant, template, container in every_container():
        where = (variant, template.name, container["name"])
        assert (where, refusals(template, container)) == (where, [])


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("spec", "securityContext", "runAsNonRoot"), False, "runs as root"),
        (("container", "securityContext", "readOnlyRootFilesystem"), False, "writes to its root"),
        (("container", "securityContext", "privileged"), True, "is privileged"),
        (("spec", "hostNetwork"), True, "shares its machine"),
        (("spec", "volumes"), [{"name": "x", "hostPath": {"path": "/"}}], "mounts ['hostPath']"),
    ],
)
def test_a_container_that_is_not_confined_is_seen(path: Any, value: Any, expected: str) -> None:
    template = copy.deepcopy(cluster("single-node").template("node"))
    container = template.containers[0]
    place: Any = {"spec": template.spec, "container": container}
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert refusals(template, container) == [expected]


def test_only_who_gets_a_gpu_is_in_a_further_group_and_everybody_who_does() -> None:
    found = set()
    for variant in VARIANTS:
        for template in cluster(variant).templates():
            groups = template.spec["securityContext"].get("supplementalGroups", [])
            gpu = "runtimeClassName" in template.spec
            assert groups == ([44] if gpu else []), (variant, template.name)
            found |= {template.name} if gpu else set()
    assert found == {"gpu-check"}


def test_only_who_submits_a_training_has_a_token() -> None:
    holders = set()
    for variant in VARIANTS:
        for template in cluster(variant).templates():
            if template.spec.get("automountServiceAccountToken", True):
                holders.add((template.name, template.component))
                assert template.spec["serviceAccountName"] == "trainer-submit"
    assert holders == {("retrain", "submit")}


def test_every_container_asks_for_memory_and_processor_and_has_a_limit() -> None:
    for variant, template, container in every_container():
        where = (variant, template.name, container["name"])
        resources = container["resources"]
        requests, limits = resources["requests"], resources["limits"]
        assert 0 < bytes_of(requests["memory"]) <= bytes_of(limits["memory"]), where
        assert cores_of(requests["cpu"]) > 0, where
        if template.component != "training":  # trainer.submit leaves the processor open
            assert cores_of(requests["cpu"]) <= cores_of(limits["cpu"]), where
            ephemeral = requests["ephemeral-storage"], limits["ephemeral-storage"]
            assert bytes_of(ephemeral[0]) <= bytes_of(ephemeral[1]), where
        assert all(
            "sizeLimit" in volume["emptyDir"]
            for volume in template.spec["volumes"]
            if "emptyDir" in volume
        ), where


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_default_limits_and_the_quota_admit_what_runs_here(variant: str) -> None:
    found = cluster(variant)
    (limits,) = found.one("LimitRange", "defaults")["spec"]["limits"]
    for template in found.templates():
        for container in template.containers:
            limit = {**limits["default"], **container["resources"]["limits"]}
            for name, asked in container["resources"]["requests"].items():
                parse = cores_of if name == "cpu" else bytes_of
                assert name not in limit or parse(asked) <= parse(limit[name]), template.name
    hard = found.one("ResourceQuota", "counts")["spec"]["hard"]
    doors = [each for each in found.of("Service") if each["spec"].get("type") == "LoadBalancer"]
    assert len(doors) == int(hard["services.loadbalancers"])
    ports = sum(len(each["spec"]["ports"]) for each in doors)
    assert ports == int(hard["services.nodeports"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_that_cannot_be_changed_is_in_the_way_of_an_upgrade(variant: str) -> None:
    """The template of a Job is immutable, and an upgrade changes the image in it."""
    for job in cluster(variant).of("Job"):
        assert 0 < job["spec"]["ttlSecondsAfterFinished"] <= 86400, job["metadata"]["name"]


def test_images_are_known_and_of_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for variant, template, container in every_container():
        name, _, tag = container["image"].partition(":")
        where = (variant, template.name, container["image"])
        assert re.fullmatch(r"v?\d+(\.\d+)+(-[a-z0-9.]+)?", tag), where
        assert container["imagePullPolicy"] == "IfNotPresent", where
        if name.startswith("dicomnode/"):
            assert name.removeprefix("dicomnode/") in OURS, where
            assert tag == project["version"], where
        else:
            assert name in OTHERS, where


def test_images_of_others_are_those_that_the_images_list_pins() -> None:
    """docker/images.env has the digests; tags are what an image that was imported is known by."""
    pinned = (ROOT / "docker" / "images.env").read_text()
    used = {each["image"] for _, _, each in every_container()}
    for image in used:
        name, _, tag = image.partition(":")
        tags = set(re.findall(rf"\b{re.escape(name)}:([\w.-]+)", pinned))
        if name in OTHERS and tags:
            assert tags == {tag}, image


def test_no_value_is_a_password() -> None:
    for variant in VARIANTS:
        assert not cluster(variant).of("Secret"), "a Secret is made at the site"
    for variant, template, container in every_container():
        for variable in container.get("env", []):
            if re.search(r"PASSWORD|TOKEN|DATABASE_URL", variable["name"]):
                value = variable.get("value", "/")
                assert value.startswith("/"), (variant, template.name, variable["name"])


def test_the_namespace_refuses_who_is_not_confined() -> None:
    labels = cluster("single-node").one("Namespace", "dicomnode")["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


def test_the_training_job_of_the_examples_is_what_the_command_renders() -> None:
    """`trainer submit --config deploy/examples/training-submit.toml --render` writes it."""
    rendered = render(load(EXAMPLE), "trainer-fit").to_yaml()
    assert (DEPLOY / "examples" / "training-job.yaml").read_text() == rendered
    assert [each["kind"] for each in yaml.safe_load_all(rendered)] == [
        "Service",
        "ConfigMap",
        "Job",
    ]
