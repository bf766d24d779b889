"""The manifests of `deploy/overlays/k3s-jetson`, run with their NetworkPolicies and a counter in
every namespace: images come, reports go, a model is trained, and nobody speaks to anything
outside the hospital, asks for a name of the world, or tries what no policy allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.test_cluster import (
    SMALL,
    hand_over_node_settings,
    import_labels,
    serves,
)
from tests.cluster.monitoring import ClusterPrometheus
from tests.cluster.namespaces import require_namespaces
from tests.cluster.network import Network
from tests.cluster.outside import Outside
from tests.cluster.pod import Pod
from tests.cluster.policies import Policies
from tests.cluster.site import Hospital, running_hospital
from tests.cluster.supported import Object
from tests.cluster.training import submitted
from tests.conftest import require_program

pytest.importorskip("tensorflow", reason="needs the `model` extra")

STUDIES = 50


@dataclass
class Watched:
    """A hospital, and what is known of everybody in it."""

    network: Network
    outside: Outside
    policies: Policies
    names: dict[str, str]
    """Of pods, also of those that are gone, by their addresses."""

    def require_quiet(self) -> None:
        assert self.outside.seen() == {}, self.outside.said()
        assert self.network.outside_names() == {}
        denied = [
            f"{self.names.get(each.source, each.source)} -> "
            f"{self.names.get(each.target, each.target)} {each.protocol} {each.port}: {packets}"
            for each, packets in self.policies.denied().items()
        ]
        assert denied == []


@contextmanager
def watched(folder: Path, *, attempts: bool) -> Iterator[tuple[Hospital, Watched]]:
    """Counters and policies are there before the first pod is."""
    with ExitStack() as stack:
        network = stack.enter_context(Network(folder / "net"))
        outside = stack.enter_context(Outside(network, attempts=attempts))
        found: list[Watched] = []

        def guard(_: Network, objects: list[Object]) -> Callable[[list[Pod]], None]:
            policies = stack.enter_context(Policies(network, objects))
            found.append(Watched(network, outside, policies, {}))
            return changed

        def changed(pods: list[Pod]) -> None:
            found[0].names.update((pod.address, pod.name) for pod in pods)
            found[0].policies.apply(pods)

        hospital = stack.enter_context(running_hospital(network, folder, guard))
        yield hospital, found[0]


@pytest.mark.parametrize("attempts", [True, False], ids=["attempts are seen", "no default route"])
def test_a_day_of_the_cluster_sends_nothing_outside_the_hospital(tmp_path: Path, attempts: bool):
    """
    Images, reports, figures for Prometheus, and a retraining on both boards.
    """
    require_namespaces()
    require_program("nft")
    with watched(tmp_path, attempts=attempts) as (hospital, seen):
        cluster = hospital.cluster
        hospital.await_reports(hospital.push(STUDIES))
        import_labels(hospital)
        hand_over_node_settings(hospital)
        manifests = submitted(hospital.overlay / "submit.toml", SMALL, "retrain-1")
        with cluster.job(manifests) as job:
            assert job.wait(400) == "Complete", job.said()
        for pod in cluster.ready("inference"):
            cluster.until(lambda pod=pod: serves(cluster, pod, 2), seconds=60, what="version 2")
        hospital.await_reports(hospital.push(2))
        hospital.require_one_report_each()
        prometheus = ClusterPrometheus(cluster, *cluster.ready("prometheus"))
        cluster.until(
            lambda: len(prometheus.query("up == 1")) >= 5, seconds=60, what="figures in Prometheus"
        )
        seen.require_quiet()
        require_noticed(seen, hospital, attempts=attempts)


def require_noticed(seen: Watched, hospital: Hospital, *, attempts: bool) -> None:
    """The silence is one: what a pod of this very cluster tries now is heard."""
    pod = hospital.cluster.ready("node")[0]
    tried = pod.run("python3", "-c", TRIES)
    assert tried.stdout.split() == ["told" if attempts else "unreachable"], tried.stderr
    expected = {pod.machine.namespace: {"192.0.2.1": 1}} if attempts else {}
    assert seen.outside.seen() == expected
    assert set(seen.network.outside_names()) == {"storage.googleapis.com"}
    (denied,) = seen.policies.denied()
    assert (denied.source, denied.target, denied.port) == (
        pod.address,
        hospital.pacs.machine.address,
        22,
    )


TRIES = """
import errno, socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    try:
        sender.sendto(b"?", ("192.0.2.1", 443))
        print("told")
    except OSError as error:
        assert error.errno == errno.ENETUNREACH, error
        print("unreachable")
try:
    socket.getaddrinfo("storage.googleapis.com", 443)
except socket.gaierror:
    pass
try:
    socket.create_connection(("10.0.30.10", 22), timeout=5)
except ConnectionRefusedError:
    pass
"""
