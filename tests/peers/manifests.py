"""The cluster as kustomize renders it, and questions about its objects."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, require_program
from tests.unit.network_policies import Pod, selects
from trainer.submit import render
from trainer.submit.settings import load

Object = dict[str, Any]

DEPLOY = ROOT / "deploy"
OVERLAYS = sorted(path.name for path in (DEPLOY / "overlays").iterdir())
EXAMPLE = DEPLOY / "examples" / "training-submit.toml"

VARIANTS = {
    **{name: (name, ()) for name in OVERLAYS},
    "single-node with backup": ("single-node", ("backup",)),
    "k3s-jetson with backup": ("k3s-jetson", ("backup",)),
    "k3s-jetson with workers": ("k3s-jetson", ("training-workers",)),
    "k3s-amd64 with TensorFlow Serving": ("k3s-amd64", ("tensorflow-serving", "gpu-check")),
}
"""Every overlay as it is shipped, and the combinations that its comments offer."""

_OLDEST = (1, 27)
"""The first kubectl with a kustomize that knows components and replacements as used here."""


@dataclass(frozen=True)
class Template:
    """The pods of one workload, or of one run of `trainer submit`."""

    owner: Object
    metadata: Object
    spec: Object

    @property
    def name(self) -> str:
        return str(self.owner["metadata"]["name"])

    @property
    def component(self) -> str:
        return str(self.labels["app.kubernetes.io/component"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.metadata["labels"])

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        return {
            port["name"]: port["containerPort"]
            for container in self.containers
            for port in container.get("ports", [])
        }

    @property
    def replicas(self) -> int:
        return int(self.owner["spec"].get("replicas", 1))

    def pod(self) -> Pod:
        return Pod(self.component, self.labels, self.owner["metadata"]["namespace"], self.ports)


class Cluster:
    """The objects of one overlay."""

    def __init__(self, name: str, objects: list[Object]) -> None:
        self.name, self.objects = name, objects

    def of(self, kind: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, name: str) -> Object:
        """By name; those of generated ConfigMaps have a suffix."""
        names = [each["metadata"]["name"] for each in self.of(kind)]
        found = [
            each
            for each in self.of(kind)
            if each["metadata"]["name"] == name
            or (kind == "ConfigMap" and each["metadata"]["name"].rpartition("-")[0] == name)
        ]
        assert len(found) == 1, f"{self.name}: {kind} {name} among {names}"
        return found[0]

    def templates(self) -> list[Template]:
        """Of the workloads, and of the workers that somebody may submit."""
        return [*map(_template, filter(_is_workload, self.objects)), workers()]

    def template(self, name: str) -> Template:
        (found,) = [each for each in self.templates() if each.name == name]
        return found

    def selected(self, selector: Object) -> list[Template]:
        return [each for each in self.templates() if selects(selector, each.labels)]


def container(template: Template, name: str | None = None) -> Object:
    """The container of that name, or the only one."""
    (found,) = [
        each for each in template.spec["containers"] if name is None or each["name"] == name
    ]
    return dict(found)


def bytes_of(quantity: str) -> int:
    """Of a memory quantity."""
    for suffix, factor in (("Ki", 2**10), ("Mi", 2**20), ("Gi", 2**30)):
        if quantity.endswith(suffix):
            return int(float(quantity.removesuffix(suffix)) * factor)
    return int(quantity)


def cores_of(quantity: str) -> float:
    """Of a processor quantity."""
    text = str(quantity)
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)


@functools.cache
def cluster(variant: str) -> Cluster:
    """Rendered by the real kubectl."""
    overlay, further = VARIANTS[variant]
    source = DEPLOY / "overlays" / overlay
    if not further:
        return Cluster(variant, kustomize(source))
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder).resolve()
        for path in source.iterdir():
            (here / path.name).write_text(path.read_text())
        document = yaml.safe_load((here / "kustomization.yaml").read_text())
        storage, *components, site = document["components"]
        added = {name: f"../../components/{name}" for name in further}
        # where the comment stands that offers it: components/postgres patches it
        backup = [added.pop("backup")] if "backup" in added else []
        document["components"] = [storage, *backup, *components, *added.values(), site]
        if "training-workers" in further:
            document["configMapGenerator"] += [{"name": "submit-config", "files": ["submit.toml"]}]
            document["patches"].remove({"path": "retrain.yaml"})
        for key in ("resources", "components"):
            document[key] = [
                os.path.relpath(source / each, here) if each.startswith("..") else each
                for each in document[key]
            ]
        (here / "kustomization.yaml").write_text(yaml.safe_dump(document))
        return Cluster(variant, kustomize(here))


@functools.cache
def workers() -> Template:
    """The pods of a submitted training."""
    return _template(render(load(EXAMPLE), "training").job)


def kustomize(folder: Path) -> list[Object]:
    ran = subprocess.run(
        [_kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr, f"kustomize warns: {ran.stderr}"
    return [each for each in yaml.safe_load_all(ran.stdout) if each]


@functools.cache
def _kubectl() -> str:
    """Of the system, or of this environment. Debian 12's own is older than components."""
    here = str(Path(sys.executable).parent)
    program = require_program("kubectl", path=f"/usr/local/bin:/usr/bin:/bin:{here}")
    told = subprocess.run(
        [program, "version", "--client", "--output=json"],
        capture_output=True,
        text=True,
        check=True,
    )
    version = json.loads(told.stdout)["clientVersion"]
    found = int(version["major"]), int(version["minor"].rstrip("+"))
    if found < _OLDEST:
        message = f"{program} is {version['gitVersion']}; the manifests need 1.27 or newer"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return program


def _is_workload(made: Object) -> bool:
    return made["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")


def _template(owner: Object) -> Template:
    spec = owner["spec"]
    if owner["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return Template(owner, spec["template"]["metadata"], spec["template"]["spec"])


def every_container() -> Iterator[tuple[str, Template, Object]]:
    """Of every variant."""
    for variant in VARIANTS:
        for template in cluster(variant).templates():
            for each in template.containers:
                yield variant, template, each
