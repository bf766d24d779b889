"""What one worker is: its container, its volumes, where it may run. Pure.

The pods satisfy the *restricted* profile of
https://kubernetes.io/docs/concepts/security/pod-security-standards/: not root, no privilege,
no capability, a root file system that nobody writes to; no token of the API server either.
"""

from __future__ import annotations

from typing import Any, Final

from trainer.submit.settings import CONFIG_MOUNT, TMP_MOUNT, ClusterSettings, Run

PORT: Final = 8470
"""At which the workers speak to each other."""
CONTAINER: Final = "trainer"
VIDEO_GROUP: Final = 44
"""Of Debian and Ubuntu. A Jetson's GPU belongs to it: deploy/components/gpu-check says more."""

Object = dict[str, Any]


def labels(name: str) -> dict[str, str]:
    """https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/"""
    return {
        "app.kubernetes.io/name": "dicomnode-trainer",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": "training",
        "app.kubernetes.io/part-of": "dicomnode",
        "app.kubernetes.io/managed-by": "trainer-submit",
    }


def selector(name: str) -> dict[str, str]:
    """The labels that find the pods of one run."""
    every = labels(name)
    return {key: every[key] for key in ("app.kubernetes.io/name", "app.kubernetes.io/instance")}


def file_name(run: Run) -> str:
    """Of the file in the ConfigMap that says what to run."""
    return f"{run.command}.toml"


def pod_spec(cluster: ClusterSettings, run: Run, name: str) -> Object:
    """The worker's pod: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/"""
    spec: Object = {
        "restartPolicy": "Never",  # as podFailurePolicy requires
        "subdomain": name,
        "serviceAccountName": cluster.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": cluster.user,
            "runAsGroup": cluster.user,
            "fsGroup": cluster.user,
            # large volumes of films are not walked through at every start
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(cluster, run, name)],
        "volumes": _volumes(cluster, name),
    }
    if cluster.runtime_class:
        spec["runtimeClassName"] = cluster.runtime_class
        spec["securityContext"]["supplementalGroups"] = [VIDEO_GROUP]
    machines = dict(cluster.node_selector)
    if cluster.architecture:
        machines["kubernetes.io/arch"] = cluster.architecture
    if machines:
        spec["nodeSelector"] = machines
    if cluster.spread != "none" and cluster.workers > 1:
        spec["affinity"] = {"podAntiAffinity": _apart(cluster.spread, name)}
    return spec


def _container(cluster: ClusterSettings, run: Run, name: str) -> Object:
    requests: Object = {"cpu": cluster.cpu, "memory": cluster.memory}
    limits: Object = {"memory": cluster.memory}
    if cluster.gpus:
        limits["nvidia.com/gpu"] = cluster.gpus
    container: Object = {
        "name": CONTAINER,
        "image": cluster.image,
        "imagePullPolicy": cluster.image_pull_policy,
        "command": ["trainer", run.command, "--config", str(CONFIG_MOUNT / file_name(run))],
        "env": [
            {"name": "DICOMNODE_JOB_NAME", "value": name},
            {"name": "DICOMNODE_SERVICE", "value": name},
            {
                "name": "DICOMNODE_NAMESPACE",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}},
            },
            {"name": "DICOMNODE_WORKERS", "value": str(cluster.workers)},
            {"name": "HOME", "value": str(TMP_MOUNT)},  # caches of libraries
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            {"name": "TF_CPP_MIN_LOG_LEVEL", "value": "2"},
        ],
        "ports": [{"name": "collective", "containerPort": PORT}],
        "resources": {"requests": requests, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # the last lines of a worker that failed are in its status, for whoever asks why
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(cluster),
    }
    if cluster.secret:
        container["envFrom"] = [{"secretRef": {"name": cluster.secret}}]
    return container


def _mounts(cluster: ClusterSettings) -> list[Object]:
    mounts: list[Object] = [
        {"name": "config", "mountPath": str(CONFIG_MOUNT), "readOnly": True},
        {"name": "tmp", "mountPath": str(TMP_MOUNT)},
    ]
    for claim in cluster.claims:
        mount: Object = {"name": _volume(cluster, claim.claim), "mountPath": claim.mount}
        if claim.sub_path:
            mount["subPath"] = claim.sub_path
        if claim.read_only:
            mount["readOnly"] = True
        mounts.append(mount)
    return mounts


def _volumes(cluster: ClusterSettings, name: str) -> list[Object]:
    claims = list(dict.fromkeys(claim.claim for claim in cluster.claims))
    return [
        {"name": "config", "configMap": {"name": name}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "2Gi"}},
        *(
            {
                "name": _volume(cluster, claim),
                "persistentVolumeClaim": {"claimName": claim},
            }
            for claim in claims
        ),
    ]


def _volume(cluster: ClusterSettings, claim: str) -> str:
    """A claim that is mounted at several paths is one volume."""
    names = list(dict.fromkeys(each.claim for each in cluster.claims))
    return f"claim-{names.index(claim)}"


def _apart(spread: str, name: str) -> Object:
    term = {
        "labelSelector": {"matchLabels": selector(name)},
        "topologyKey": "kubernetes.io/hostname",
    }
    if spread == "required":
        return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    return {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "podAffinityTerm": term}
        ]
    }
