"""The control plane with small pods: who is there, who is named, how they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.node import until
from tests.cluster.boards import Board
from tests.cluster.cluster import Cluster
from tests.cluster.namespaces import require_namespaces
from tests.cluster.network import Network
from tests.cluster.pod import Pod
from tests.cluster.supported import Unsupported

Object = dict[str, Any]
Run = Callable[..., AbstractContextManager[Cluster]]

SERVER = """
import http.server, os, pathlib, signal, socket, sys
def ended(number, frame):
    print("ended by", signal.Signals(number).name, flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if os.environ.get("DEAF") else ended)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        bad = pathlib.Path("/work", f"{socket.gethostname()}{self.path.replace('/', '-')}")
        self.send_response(503 if bad.exists() else 200)
        self.end_headers()
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
"""Answers 503 to /live of pod p when there is a file p-live on the claim."""
SERVICE = {"web": False, "all": True}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    require_namespaces()

    @contextmanager
    def started(*objects: Object, boards: int = 2, **more: Any) -> Iterator[Cluster]:
        claims = [claim("work", "storage-nfs")]
        services = [service(name, unready) for name, unready in SERVICE.items()]
        with Network(tmp_path / "net") as network:
            cluster = Cluster(
                [*claims, *services, *objects],
                network=network,
                folder=tmp_path / "cluster",
                boards=[Board(name=f"board-{number}") for number in range(boards)],
                hurry=50.0,
                **more,
            )
            with cluster:
                yield cluster

    return started


def claim(name: str, storage_class: str) -> Object:
    return {
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "here"},
        "spec": {"storageClassName": storage_class},
    }


def service(name: str, unready: bool) -> Object:
    return {
        "kind": "Service",
        "metadata": {"name": name, "namespace": "here"},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": unready,
            "selector": {"app": "web"},
            "ports": [{"port": 8080}],
        },
    }


def container(**more: Any) -> Object:
    return {
        "name": "web",
        "image": "dicomnode/node:1",
        "command": ["python3", "-c", SERVER],
        "ports": [{"name": "http", "containerPort": 8080}],
        "startupProbe": {"tcpSocket": {"port": "http"}, "failureThreshold": 100},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "failureThreshold": 1},
        "livenessProbe": {"httpGet": {"path": "/live", "port": "http"}, "failureThreshold": 1},
        "volumeMounts": [{"name": "work", "mountPath": "/work"}],
        "securityContext": {"readOnlyRootFilesystem": True},
        **more,
    }


def deployment(replicas: int = 1, pod: Object | None = None, **more: Any) -> Object:
    return {
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "here"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "securityContext": {"runAsUser": 10001, "fsGroup": 10001},
                    "containers": [container(**more)],
                    "volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": "work"}}],
                    **(pod or {}),
                },
            },
        },
    }


def stateful_set(replicas: int, **more: Any) -> Object:
    made = deployment(replicas, **more)
    made["kind"] = "StatefulSet"
    made["spec"]["serviceName"] = "web"
    return made


def named(asker: Pod, name: str) -> set[str]:
    """The A records, as a pod sees them."""
    found = asker.run("getent", "ahostsv4", name).stdout.splitlines()
    return {line.split()[0] for line in found}


def test_only_ready_pods_are_named_unless_the_service_says_otherwise(run: Run):
    with run(deployment(2)) as cluster:
        first, second = cluster.await_ready("web")
        both = {first.address, second.address}
        cluster.until(lambda: named(first, "web") == both, seconds=20, what="two records")
        sick = cluster.claims["work"] / f"{second.name}-ready"
        sick.touch()
        cluster.until(lambda: named(first, "web") == {first.address}, seconds=20, what="one record")
        assert cluster.ready("web") == [first]
        assert named(first, "all") == both
        assert second.restarts == 0
        sick.unlink()
        cluster.until(lambda: named(first, "web") == both, seconds=20, what="two records again")


def test_a_sick_container_is_started_again_in_its_pod(run: Run):
    with run(deployment()) as cluster:
        (pod,) = cluster.await_ready("web")
        sick = cluster.claims["work"] / f"{pod.name}-live"
        sick.touch()
        cluster.until(lambda: pod.restarts >= 1, seconds=20, what="a restart")
        sick.unlink()
        assert cluster.await_ready("web") == [pod]
        cluster.until(
            lambda: named(pod, "web") == {pod.address}, seconds=20, what="the same address"
        )


def test_a_container_that_never_gets_ready_is_named_nowhere(run: Run):
    startup = {"startupProbe": {"exec": {"command": ["false"]}, "failureThreshold": 2}}
    with run(deployment(**startup)) as cluster:
        cluster.until(lambda: cluster.pods("web"), seconds=20, what="a pod")
        (pod,) = cluster.pods("web")
        cluster.until(lambda: pod.restarts >= 2, seconds=30, what="two restarts")
        assert cluster.ready("web") == []


def test_a_lost_pod_is_replaced_where_there_is_room(run: Run):
    rule = "requiredDuringSchedulingIgnoredDuringExecution"
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    with run(deployment(2, {"affinity": {"podAntiAffinity": {rule: [term]}}})) as cluster:
        first, second = cluster.await_ready("web")
        assert cluster.board(first) != cluster.board(second)
        cluster.scale("web", 3)
        cluster.until(lambda: "web" in cluster.pending, seconds=10, what="no room for a third")
        cluster.kill(first)
        cluster.until(
            lambda: len(cluster.ready("web")) == 2 and first not in cluster.pods("web"),
            seconds=20,
            what="another pod",
        )
        other, new = cluster.ready("web")
        assert other is second
        assert cluster.board(new) == cluster.board(first)
        assert new.address != first.address
        assert named(new, "web") <= {second.address, new.address}


@pytest.mark.parametrize(
    ("deaf", "pre_stop", "said", "code"),
    [
        (False, 1, "ended by SIGTERM", 0),
        (True, 1, "", 137),
        # longer than there is time for: it is never asked
        (False, 60, "", 137),
    ],
)
def test_a_pod_ends_after_its_pre_stop_by_a_signal_and_then_by_force(
    run: Run, deaf: bool, pre_stop: int, said: str, code: int
):
    more = {
        "lifecycle": {"preStop": {"sleep": {"seconds": pre_stop}}},
        "env": [{"name": "DEAF", "value": "yes" if deaf else ""}],
    }
    with run(deployment(2, {"terminationGracePeriodSeconds": 2}, **more)) as cluster:
        first, second = cluster.await_ready("web")
        cluster.scale("web", 1)
        cluster.until(
            lambda: named(first, "all") == {first.address}, seconds=20, what="no name any more"
        )
        assert second.ending
        assert cluster.pods("web") == [first]
        cluster.until(lambda: not second.running(), seconds=20, what="an end")
        assert second.said().strip() == said
        assert second.wait(1) == code


def test_a_pod_that_ends_in_order_has_a_successor_before_it_has_ended(run: Run):
    more = {"lifecycle": {"preStop": {"sleep": {"seconds": 60}}}}
    with run(deployment(1, {"terminationGracePeriodSeconds": 60}, **more)) as cluster:
        (old,) = cluster.await_ready("web")
        cluster.delete(old)
        cluster.until(lambda: cluster.ready("web"), seconds=20, what="a successor")
        (new,) = cluster.ready("web")
        assert new is not old
        assert old.running()
        assert named(new, "web") <= {new.address}


def test_the_next_pod_of_a_stateful_set_waits_for_the_one_before(run: Run):
    go = {"exec": {"command": ["test", "-e", "/work/go"]}, "failureThreshold": 2}
    made = stateful_set(2, startupProbe=go)
    with run(made) as cluster:
        cluster.until(
            lambda: any(pod.restarts for pod in cluster.pods("web")), seconds=30, what="a restart"
        )
        assert [pod.name for pod in cluster.pods("web")] == ["web-0"]
        (cluster.claims["work"] / "go").touch()
        assert [pod.name for pod in cluster.await_ready("web")] == ["web-0", "web-1"]


def test_a_stateful_set_keeps_names_and_claims(run: Run):
    made = stateful_set(2)
    made["spec"]["volumeClaimTemplates"] = [
        {"metadata": {"name": "data"}, "spec": {"storageClassName": "local-path"}}
    ]
    (only,) = made["spec"]["template"]["spec"]["containers"]
    only["volumeMounts"].append({"name": "data", "mountPath": "/data"})
    with run(made) as cluster:
        first, second = cluster.await_ready("web")
        assert [first.name, second.name] == ["web-0", "web-1"]
        assert second.run("touch", "/data/mine").returncode == 0
        assert [path.name for path in cluster.claims["data-web-1"].iterdir()] == ["mine"]
        assert named(first, "web-1.web") == {second.address}
        cluster.kill(second)
        cluster.until(
            lambda: (
                [pod.name for pod in cluster.ready("web") if pod is not second]
                == ["web-0", "web-1"]
            ),
            seconds=20,
            what="web-1 again",
        )
        again = cluster.ready("web")[1]
        assert again.run("ls", "/data").stdout.split() == ["mine"]
        cluster.until(
            lambda: named(first, "web-1.web") == {again.address}, seconds=20, what="its name"
        )


LOOK = """
import os, pathlib, stat
for path in ("/etc/secret/password", "/etc/both/a/settings", "/etc/both/password"):
    found = os.stat(path)
    print(path, oct(stat.S_IMODE(found.st_mode)), found.st_gid, pathlib.Path(path).read_text())
print(*(os.environ[name] for name in ("FROM_SECRET", "FROM_MAP", "password", "POD")))
print(oct(os.stat("/tmp").st_mode), os.stat("/tmp").st_gid, os.getuid(), os.getgroups())
print(sorted(os.listdir("/etc/zone")), flush=True)
import time; time.sleep(1000)
"""


def test_secrets_maps_and_variables_are_where_the_manifest_puts_them(run: Run):
    pod = {
        "volumes": [
            {"name": "secret", "secret": {"secretName": "database", "defaultMode": 0o440}},
            {"name": "zone", "configMap": {"name": "zone", "optional": True}},
            {"name": "tmp", "emptyDir": {}},
            {
                "name": "both",
                "projected": {
                    "sources": [
                        {"configMap": {"name": "m", "items": [{"key": "k", "path": "a/settings"}]}},
                        {"secret": {"name": "database"}},
                    ]
                },
            },
        ]
    }
    more = {
        "command": ["python3", "-c", LOOK],
        "startupProbe": {"exec": {"command": ["true"]}},
        "readinessProbe": {"exec": {"command": ["true"]}},
        "livenessProbe": {"exec": {"command": ["true"]}},
        "volumeMounts": [
            {"name": "secret", "mountPath": "/etc/secret"},
            {"name": "zone", "mountPath": "/etc/zone"},
            {"name": "both", "mountPath": "/etc/both"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
        "envFrom": [{"secretRef": {"name": "database"}}],
        "env": [
            {
                "name": "FROM_SECRET",
                "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}},
            },
            {"name": "FROM_MAP", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
    }
    config = {
        "kind": "ConfigMap",
        "metadata": {"name": "m", "namespace": "here"},
        "data": {"k": "v"},
    }
    secrets = {"database": {"password": "p"}}
    with run(config, deployment(1, pod, **more), secrets=secrets) as cluster:
        (started,) = cluster.await_ready("web")
        cluster.until(lambda: "[]" in started.said(), seconds=20, what="its look round")
        assert started.said().splitlines() == [
            "/etc/secret/password 0o440 10001 p",
            "/etc/both/a/settings 0o644 10001 v",
            "/etc/both/password 0o644 10001 p",
            f"p v p {started.name}",
            "0o42777 10001 10001 [10001]",
            "[]",
        ]


@pytest.mark.parametrize(
    ("pod", "more", "refused"),
    [
        ({"hostNetwork": True}, {}, "hostNetwork is not carried out"),
        ({"automountServiceAccountToken": True}, {}, "a token of an API server"),
        ({}, {"lifecycle": {"postStart": {}}}, "postStart is not carried out"),
        ({}, {"readinessProbe": {"grpc": {"port": 1}}}, "grpc is not carried out"),
        ({}, {"image": "grafana/loki:1"}, "nothing stands in for the image grafana/loki:1"),
        ({}, {"command": ["echo", "$(POD)"]}, "variables in its arguments"),
        ({"volumes": [{"name": "work", "hostPath": {"path": "/"}}]}, {}, "hostPath"),
    ],
)
def test_what_is_not_carried_out_is_refused(run: Run, pod: Object, more: Object, refused: str):
    with run(deployment(1, pod, **more)) as cluster:
        until(lambda: cluster.failure is not None, seconds=20, what="a refusal")
        assert isinstance(cluster.failure, Unsupported)
        assert refused in str(cluster.failure)
