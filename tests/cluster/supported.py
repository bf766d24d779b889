"""Which fields of a manifest are carried out here, and which are only read.

A field that is in no list is refused: what a manifest says is never silently ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


class Unsupported(AssertionError):
    """The manifest asks for something that is not carried out here."""


POD = {
    "affinity": "by tests.cluster.boards",
    "containers": "one",
    "hostname": "",
    "nodeSelector": "by tests.cluster.boards",
    "securityContext": "see SECURITY",
    "subdomain": "",
    "terminationGracePeriodSeconds": "",
    "volumes": "",
    # only read
    "automountServiceAccountToken": "there is no API server, so no token: true is refused",
    "enableServiceLinks": "false only",
    "restartPolicy": "Always of a workload, Never of a Job",
    "serviceAccountName": "without a token it is a name",
    "tolerations": "no board is tainted",
}
CONTAINER = {
    "args": "",
    "command": "",
    "env": "",
    "envFrom": "",
    "image": "by tests.cluster.image",
    "lifecycle": "preStop",
    "livenessProbe": "",
    "name": "",
    "ports": "names for probes and Services; as in Kubernetes they open nothing",
    "readinessProbe": "",
    "securityContext": "see SECURITY",
    "startupProbe": "",
    "volumeMounts": "",
    # only read
    "imagePullPolicy": "nothing is pulled",
    "resources": "requests are room on a board and a precedence; limits are not enforced",
    "terminationMessagePolicy": "",
}
SECURITY = {
    "allowPrivilegeEscalation": "",
    "capabilities": "drop ALL",
    "fsGroup": "",
    "readOnlyRootFilesystem": "",
    "runAsGroup": "",
    "runAsNonRoot": "",
    "runAsUser": "",
    # only read
    "fsGroupChangePolicy": "claims are folders with the right group from the start",
    "seccompProfile": "not loaded",
}
PROBE = {
    "exec": "",
    "failureThreshold": "",
    "httpGet": "",
    "initialDelaySeconds": "",
    "periodSeconds": "",
    "tcpSocket": "",
    "timeoutSeconds": "",
}
DEPLOYMENT = {
    "replicas": "",
    "selector": "",
    "template": "",
    # only read
    "revisionHistoryLimit": "",
    "strategy": "a template does not change while a cluster runs here",
}
STATEFUL_SET = {
    "replicas": "",
    "selector": "",
    "serviceName": "",
    "template": "",
    "volumeClaimTemplates": "",
    # only read
    "persistentVolumeClaimRetentionPolicy": "nothing is kept after the test anyway",
}
SERVICE = {
    "clusterIP": "None, or none given",
    "externalTrafficPolicy": "by tests.cluster.balancer",
    "ports": "",
    "publishNotReadyAddresses": "",
    "selector": "",
    "type": "",
}


def require(found: Mapping[str, Any], known: Mapping[str, str], where: str) -> None:
    """Refuse what is in no list."""
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise Unsupported(f"{where}: {', '.join(unknown)} is not carried out by tests/cluster")


def require_pod(spec: Object, where: str) -> None:
    """Of a pod spec: every field down to its containers and their probes."""
    require(spec, POD, where)
    require(spec.get("securityContext", {}), SECURITY, f"{where}.securityContext")
    if len(spec["containers"]) != 1:
        raise Unsupported(f"{where}: {len(spec['containers'])} containers in one pod")
    if spec.get("automountServiceAccountToken", False):
        raise Unsupported(f"{where}: a token of an API server that is not there")
    if spec.get("enableServiceLinks", False):
        raise Unsupported(f"{where}: variables that tell of every Service")
    (container,) = spec["containers"]
    require(container, CONTAINER, f"{where}.containers[0]")
    require(container.get("securityContext", {}), SECURITY, f"{where}.securityContext")
    require(container.get("lifecycle", {}), {"preStop": ""}, f"{where}.lifecycle")
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        require(container.get(kind, {}), PROBE, f"{where}.{kind}")
