"""The network on which `tests.cluster` runs the manifests does what a cluster's does.

Sockets of these tests are made inside a machine's namespace; what listens there is as far away
as another machine.
"""

from __future__ import annotations

import errno
import itertools
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.node import until
from tests.cluster import namespaces
from tests.cluster.balancer import Balancer, Translation, carry
from tests.cluster.network import Machine, Network
from tests.cluster.outside import Outside
from tests.cluster.policies import DNS, Known, Policies
from tests.conftest import ROOT, require_program
from tests.peers.manifests import cluster
from tests.peers.test_manifests_network import BESIDE_PACS, MODALITY, PACS, SERVER, STRANGER
from tests.unit import network_policies as evaluator

Object = dict[str, Any]
REFUSED = errno.errorcode[errno.ECONNREFUSED]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    namespaces.require_namespaces()
    require_program("nft")
    with Network(tmp_path / "network") as started:
        yield started


@contextmanager
def listening(machine: Machine, *ports: int) -> Iterator[None]:
    """Whoever connects is told the address that it comes from, and then its own words."""
    with ExitStack() as stack:
        for port in ports:
            listener = namespaces.inside(
                machine.namespace, lambda port=port: socket.create_server(("", port), backlog=64)
            )
            stack.callback(_end, listener)
            threading.Thread(
                target=_answer, args=(listener,), name=f"port-{port}", daemon=True
            ).start()
        yield


def _end(listener: socket.socket) -> None:
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _answer(listener: socket.socket) -> None:
    with suppress(OSError):  # the listener was ended
        while True:
            connection, address = listener.accept()
            threading.Thread(target=_echo, args=(connection, address[0]), daemon=True).start()


def _echo(connection: socket.socket, address: str) -> None:
    with connection, suppress(ConnectionError):
        connection.sendall(address.ljust(16).encode())
        while said := connection.recv(64):
            connection.sendall(said)


def connected(namespace: str, address: str, port: int) -> socket.socket:
    return namespaces.inside(
        namespace, lambda: socket.create_connection((address, port), timeout=10)
    )


def asked(namespace: str, address: str, port: int) -> str:
    """Where the other side sees us, or why there is no connection; `closed` once it is ended."""
    try:
        with connected(namespace, address, port) as connection:
            return connection.recv(16).decode().strip() or "closed"
    except OSError as error:
        return errno.errorcode[error.errno] if error.errno else repr(error)


def service(kind: str, policy: str | None = None) -> Object:
    spec: Object = {"type": kind, "ports": [{"port": 104}]}
    if policy is not None:
        spec["externalTrafficPolicy"] = policy
    return {"metadata": {"name": "dicom"}, "spec": spec}


# Machines -------------------------------------------------------------------------------------


def test_pods_and_the_hospital_see_each_others_own_addresses(network: Network):
    pod, other = network.attach(), network.attach()
    modality = network.attach_host("10.0.20.7")
    with listening(other, 8500), listening(modality, 104):
        assert asked(pod.namespace, other.address, 8500) == pod.address
        assert asked(modality.namespace, other.address, 8500) == "10.0.20.7"
        assert asked(pod.namespace, "10.0.20.7", 104) == pod.address
        assert asked(network.hub, other.address, 8500) == "10.77.0.1"
        assert asked(network.hub, "10.0.20.7", 104) == "10.0.10.11"


def test_there_is_no_default_route_anywhere_and_no_address_of_ipv6_but_the_loopback(
    network: Network,
):
    network.attach()
    network.attach_host("10.0.20.7")
    carry(network, service("LoadBalancer", "Local"), network.folder / "balancer").close()
    ip = require_program("ip")
    assert len(network.namespaces) == 4, "boards, name server, pod, host"
    for name in network.namespaces:
        for family in ("-4", "-6"):
            routes = network.inside(name, ip, family, "route", "show", "table", "all")
            assert "default" not in routes, (name, routes)
        addresses = network.inside(name, ip, "-6", "-oneline", "address", "show")
        assert all(" lo " in line for line in addresses.splitlines()), (name, addresses)


def test_a_host_of_the_hospital_has_its_name(network: Network):
    network.attach_host("10.0.30.10", "pacs.hospital.example")
    pod = network.attach()
    assert resolved(network, pod, "pacs.hospital.example") == "10.0.30.10"
    assert network.outside_names() == {}


def resolved(network: Network, machine: Machine, name: str) -> str:
    """By the C library, with the resolv.conf of a pod; empty when there is no such name."""
    folder = network.folder / machine.namespace
    folder.mkdir(exist_ok=True)
    (folder / "resolv.conf").write_text(network.resolv_conf("dicomnode"))
    script = 'mount --bind "$0/resolv.conf" /etc/resolv.conf; exec getent ahostsv4 "$1"'
    done = subprocess.run(
        [
            *(require_program("ip"), "netns", "exec", machine.namespace),
            *("/bin/sh", "-euc", script, str(folder), name),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "mount" not in done.stderr, done.stderr
    return done.stdout.split()[0] if done.stdout else ""


DYING = """
import os, pathlib, signal, subprocess, sys
from tests.cluster.network import Network
network = Network(pathlib.Path(sys.argv[1])).__enter__()
machine = network.attach()
child = subprocess.Popen(["ip", "netns", "exec", machine.namespace, "sleep", "600"],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(network.hub, child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_test_has_left_is_removed_by_the_next(tmp_path: Path):
    """
    Its namespaces, and what still ran in them.
    """
    namespaces.require_namespaces()
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path / "dying")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    hub, child = done.stdout.split()
    assert Path("/run/netns", hub).exists()
    with Network(tmp_path / "next"):
        assert not Path("/run/netns", hub).exists()
    until(lambda: not _runs(int(child)), seconds=10, what="the end of what was left")


def _runs(process: int) -> bool:
    """Not a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Services -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "policy", "modality", "pod", "boards"),
    [
        ("LoadBalancer", "Local", "10.0.20.7", "10.77.0.4", "10.0.10.11"),
        ("LoadBalancer", "Cluster", "10.0.10.101", "10.0.10.101", "10.0.10.101"),
        ("ClusterIP", None, "10.0.20.7", "10.77.0.4", "10.77.0.1"),
    ],
)
def test_whom_a_pod_behind_a_service_sees(
    network: Network, kind: str, policy: str | None, modality: str, pod: str, boards: str
):
    """
    Local keeps the modality's address, for [[dimse.peers]] and the NetworkPolicy.
    """
    behind = [network.attach(), network.attach()]
    client, host = network.attach(), network.attach_host("10.0.20.7")
    carrier = carry(network, service(kind, policy), network.folder / "balancer")
    with listening(behind[0], 11112), listening(behind[1], 11112):
        carrier.set_backends({104: {(each.address, 11112) for each in behind}})
        for namespace, expected in (
            (host.namespace, modality),
            (client.namespace, pod),
            (network.hub, boards),
        ):
            seen = {asked(namespace, carrier.address, 104) for _ in range(4)}
            assert seen == {expected}, namespace
    carrier.close()
    assert asked(client.namespace, carrier.address, 104) != pod


def test_a_balancer_gives_every_pod_its_share_and_none_to_those_that_are_gone(network: Network):
    pods, host = [network.attach() for _ in range(3)], network.attach_host("10.0.20.7")
    balancer = carry(network, service("LoadBalancer", "Local"), network.folder / "balancer")
    assert isinstance(balancer, Balancer)
    with balancer, ExitStack() as stack:
        for pod in pods:
            stack.enter_context(listening(pod, 11112))
        ends = [f"{pod.address}:11112" for pod in pods]

        def given(count: int) -> list[int]:
            before = balancer.connections()
            for _ in range(count):
                assert asked(host.namespace, balancer.address, 104) == "10.0.20.7"
            after = balancer.connections()
            return [after.get(end, 0) - before.get(end, 0) for end in ends]

        balancer.set_backends({104: {(pod.address, 11112) for pod in pods[:2]}})
        assert given(10) == [5, 5, 0]
        balancer.set_backends({104: {(pod.address, 11112) for pod in pods[1:]}})
        assert given(10) == [0, 5, 5]
        balancer.set_backends({})
        assert asked(host.namespace, balancer.address, 104) == "closed"


@pytest.mark.parametrize("kind", ["LoadBalancer", "ClusterIP"])
def test_an_open_connection_outlives_a_change_of_the_pods_behind(network: Network, kind: str):
    """
    An association that is half-way when a pod becomes unready ends where it began.
    """
    first, second, host = network.attach(), network.attach(), network.attach_host("10.0.20.7")
    policy = "Local" if kind == "LoadBalancer" else None
    carrier = carry(network, service(kind, policy), network.folder / "balancer")
    with listening(first, 11112):
        carrier.set_backends({104: {(first.address, 11112)}})
        with connected(host.namespace, carrier.address, 104) as connection:
            assert connection.recv(16).decode().strip() == "10.0.20.7"
            with listening(second, 11112):
                carrier.set_backends({104: {(second.address, 11112)}})
                connection.sendall(b"still there")
                assert connection.recv(64) == b"still there"
                with connected(host.namespace, carrier.address, 104) as new:
                    assert new.recv(16)
                    carrier.set_backends({})
                    for each in (connection, new):
                        each.sendall(b"and now")
                        assert each.recv(64) == b"and now"
    carrier.close()


def test_a_service_with_nobody_behind_it_refuses(network: Network):
    carrier = carry(network, service("ClusterIP"), network.folder / "balancer")
    assert isinstance(carrier, Translation)
    for namespace in (network.attach().namespace, network.hub):
        assert asked(namespace, carrier.address, 104) == REFUSED


# Policies -------------------------------------------------------------------------------------

PORTS = (22, 443, 4242, 5432, 6443, 8080, 8470, 8500, 8501, 9090, 9100, 11112)


class Site:
    """A machine for each pod of an overlay, and some of the hospital."""

    def __init__(self, network: Network) -> None:
        found = cluster("k3s-amd64")
        self.network, self.objects = network, found.objects
        pods = {each.name: each for each in (template.pod() for template in found.templates())}
        pods[STRANGER.name] = STRANGER
        hosts = (MODALITY, PACS, BESIDE_PACS)
        self.ends: dict[str, evaluator.End] = {**pods, **{each.name: each for each in hosts}}
        self.machines = {
            name: network.attach_host(end.address)
            if isinstance(end, evaluator.Outside)
            else network.attach()
            for name, end in self.ends.items()
        }
        self.known = [
            Known(labels=end.labels, address=self.machines[name].address, namespace=end.namespace)
            for name, end in self.ends.items()
            if isinstance(end, evaluator.Pod)
        ]

    def without(self, *names: str) -> list[Object]:
        kept = [each for each in self.objects if each["metadata"]["name"] not in names]
        assert len(self.objects) - len(kept) >= len(names), names
        return kept

    def reaches(self, source: str, target: str, port: int) -> bool:
        machine = self.machines[source]
        return asked(machine.namespace, self.machines[target].address, port) == machine.address


@pytest.fixture
def site(network: Network) -> Site:
    return Site(network)


def test_the_boards_let_through_what_the_evaluator_of_policies_allows_and_nothing_else(site: Site):
    """
    Every pod of the overlay to every other and to the hospital, and back, port by port.
    """
    policies = [each for each in site.objects if each["kind"] == "NetworkPolicy"]
    flows = list(itertools.product(site.ends, site.ends, PORTS))
    with Policies(site.network, site.objects) as enforced, ExitStack() as stack:
        enforced.apply(site.known)
        for machine in site.machines.values():
            stack.enter_context(open_ports(machine, PORTS))
        passed = set(those_that_connect(site, flows))
        expected = {
            (source, target, port)
            for source, target, port in flows
            if source == target
            or evaluator.allows(policies, site.ends[source], site.ends[target], port)
        }
        assert passed == expected
        apart = {flow for flow in expected if flow[0] != flow[1]}
        assert len(apart) > len(site.known), "hosts among themselves are not all of it"


@contextmanager
def open_ports(machine: Machine, ports: Iterable[int]) -> Iterator[None]:
    """Connections are taken by the kernel, and by nobody else."""
    listeners = namespaces.inside(
        machine.namespace, lambda: [socket.create_server(("", port), backlog=64) for port in ports]
    )
    yield
    for each in listeners:
        each.close()


def those_that_connect(
    site: Site, flows: Iterable[tuple[str, str, int]]
) -> Iterator[tuple[str, str, int]]:
    for source, group in itertools.groupby(flows, key=lambda flow: flow[0]):
        with namespaces.pool(site.machines[source].namespace, 1, "connects") as thread:
            for flow in group:
                address = (site.machines[flow[1]].address, flow[2])
                if thread.submit(_connects, address).result():
                    yield flow


def _connects(address: tuple[str, int]) -> bool:
    with suppress(ConnectionRefusedError):
        socket.create_connection(address, timeout=10).close()
        return True
    return False


def test_what_is_forbidden_is_refused_and_listed(site: Site):
    with (
        Policies(site.network, site.objects) as policies,
        listening(site.machines["pacs"], 4242),
        listening(site.machines["beside the pacs"], 4242),
    ):
        policies.apply(site.known)
        assert site.reaches("node", "pacs", 4242)
        assert policies.denied() == {}
        assert not site.reaches("node", "beside the pacs", 4242)
        assert not site.reaches("inference", "pacs", 4242)
        policies.apply(site.known)
        found = {(each.source, each.target, each.port) for each in policies.denied()}
        assert found == {
            (site.machines["node"].address, BESIDE_PACS.address, 4242),
            (site.machines["inference"].address, PACS.address, 4242),
        }


@pytest.mark.parametrize(
    ("policy", "flow", "passes"),
    [
        ("node-to-destinations", ("node", "pacs", 4242), True),
        ("node-to-inference", ("node", "inference", 8500), True),
        ("inference-from-node", ("node", "inference", 8500), True),
        ("node-from-modalities", ("modality", "node", 11112), True),
        ("deny-all", ("inference", "pacs", 4242), False),
    ],
)
def test_one_policy_less_changes_what_passes(
    site: Site, policy: str, flow: tuple[str, str, int], passes: bool
):
    with listening(site.machines[flow[1]], flow[2]):
        with Policies(site.network, site.objects) as policies:
            policies.apply(site.known)
            assert site.reaches(*flow) is passes
        with Policies(site.network, site.without(policy)) as policies:
            policies.apply(site.known)
            assert site.reaches(*flow) is not passes


def test_who_may_come_through_a_service_is_who_may_come_to_the_pod(site: Site):
    """
    The balancer's own address opens no way round the policy, and closes none.
    """
    node, database = site.machines["node"], site.machines["database"]
    dicom = carry(site.network, service("LoadBalancer", "Local"), site.network.folder / "dicom")
    postgres = carry(site.network, service("ClusterIP"), site.network.folder / "postgres")
    dicom.set_backends({104: {(node.address, 11112)}})
    postgres.set_backends({104: {(database.address, 5432)}})
    with (
        Policies(site.network, site.objects) as policies,
        listening(node, 11112),
        listening(database, 5432),
    ):
        policies.apply(site.known)
        through: Callable[[str, str], str] = lambda source, address: asked(  # noqa: E731
            site.machines[source].namespace, address, 104
        )
        assert through("modality", dicom.address) == MODALITY.address
        assert through("beside the pacs", dicom.address) == "closed"
        assert through("inference", dicom.address) == "closed"
        assert through("node", postgres.address) == node.address
        assert through("inference", postgres.address) == REFUSED
        assert asked(site.network.hub, dicom.address, 104) == SERVER.address
    dicom.close()


def test_a_pod_goes_through_a_balancer_to_where_it_may_go_itself(site: Site):
    node, inference = site.machines["node"], site.machines["inference"]
    balancer = carry(site.network, service("LoadBalancer", "Local"), site.network.folder / "b")
    balancer.set_backends({104: {(inference.address, 8500)}})
    with Policies(site.network, site.objects) as policies, listening(inference, 8500):
        policies.apply(site.known)
        assert asked(node.namespace, balancer.address, 104) == node.address
        assert asked(site.machines["training"].namespace, balancer.address, 104) == "closed"
    balancer.close()


def test_the_boards_reach_every_pod_and_no_pod_reaches_them(site: Site):
    """
    Probes come from there, and so would a pod that has got out of its policies.
    """
    node, kubelet = site.machines["node"], 10250
    boards = Machine(namespace=site.network.hub, address="10.77.0.1", network=site.network)
    with listening(boards, kubelet), listening(node, 9999):
        assert asked(node.namespace, boards.address, kubelet) == node.address
        with Policies(site.network, site.objects) as policies:
            policies.apply(site.known)
            assert asked(site.network.hub, node.address, 9999) == boards.address
            assert asked(node.namespace, boards.address, kubelet) == REFUSED
            assert asked(node.namespace, SERVER.address, kubelet) == REFUSED


def test_names_are_for_those_that_look_them_up(site: Site):
    site.network.name("run-0.run.dicomnode.svc.cluster.local", "10.77.9.9")
    with Policies(site.network, site.objects) as policies:
        policies.apply(site.known)
        for name, expected in (("node", "10.77.9.9"), ("inference", "")):
            assert resolved(site.network, site.machines[name], "run-0.run") == expected, name
        asker = site.machines["inference"].address
        assert (asker, DNS.address, "udp", 53) in policies.denied()


def test_a_pod_that_comes_later_is_closed_too_and_one_that_goes_is_forgotten(site: Site):
    node, late = site.machines["node"], site.network.attach()
    inference = site.ends["inference"]
    assert isinstance(inference, evaluator.Pod)
    with Policies(site.network, site.objects) as policies, listening(late, 8500, 22):
        policies.apply(site.known)
        assert asked(node.namespace, late.address, 8500) == REFUSED
        policies.apply([*site.known, Known(labels=inference.labels, address=late.address)])
        assert asked(node.namespace, late.address, 8500) == node.address
        assert asked(node.namespace, late.address, 22) == REFUSED
        policies.apply(site.known)
        assert asked(node.namespace, late.address, 8500) == REFUSED


# Outside --------------------------------------------------------------------------------------

TRIES = """
import socket, sys
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(b"?", (address, 443))
        except OSError as error:
            print(address, error.errno)
"""
OUTSIDE = {
    "192.0.2.1": "IPv4 elsewhere",
    "8.8.8.8": "IPv4 elsewhere",
    "2001:db8::1": "IPv6 elsewhere",
    "224.0.0.251": "IPv4 multicast",
    "ff02::fb": "IPv6 multicast",
    "169.254.169.254": "IPv4 link-local",
}


def tried(network: Network, machine: Machine, *addresses: str) -> dict[str, int]:
    """Address -> number of the error, for those that could not be sent to."""
    said = network.inside(machine.namespace, sys.executable, "-c", TRIES, *addresses)
    return {line.split()[0]: int(line.split()[1]) for line in said.splitlines()}


def test_whoever_tries_to_speak_to_an_address_outside_is_seen(network: Network):
    early = network.attach()
    with Outside(network, attempts=True) as outside:
        late = network.attach()
        for machine in (early, late):
            assert tried(network, machine, *OUTSIDE) == {}
        each = dict.fromkeys(OUTSIDE, 1)
        assert outside.seen() == {early.namespace: each, late.namespace: each}
        network.detach(late)
        assert outside.seen() == {early.namespace: each, late.namespace: each}
        for address, kind in OUTSIDE.items():
            assert f"{early.namespace} -> {address} ({kind}): 1 packets" in outside.said()


def test_a_connection_to_the_internet_is_seen(network: Network):
    pod = network.attach()
    with Outside(network, attempts=True) as outside:
        with pytest.raises(TimeoutError):
            namespaces.inside(
                pod.namespace, lambda: socket.create_connection(("192.0.2.1", 443), timeout=0.1)
            )
        assert list(outside.seen()[pod.namespace]) == ["192.0.2.1"]


@pytest.mark.parametrize("attempts", [True, False])
def test_what_stays_in_the_cluster_and_the_hospital_is_not_seen(network: Network, attempts: bool):
    """
    Pods, hosts, Services, names, probes, and what the kernel sends of its own accord.
    """
    with Outside(network, attempts=attempts) as outside:
        pod, other = network.attach(), network.attach()
        pacs = network.attach_host("10.0.30.10", "pacs")
        carriers = [
            carry(network, service(kind, "Local"), network.folder / kind)
            for kind in ("LoadBalancer", "ClusterIP")
        ]
        with listening(other, 11112), listening(pacs, 4242):
            for carrier in carriers:
                carrier.set_backends({104: {(other.address, 11112)}})
            for namespace in (pod.namespace, pacs.namespace, network.hub):
                assert "." in asked(namespace, other.address, 11112)
                assert "." in asked(namespace, pacs.address, 4242)
                for carrier in carriers:
                    assert "." in asked(namespace, carrier.address, 104)
        assert resolved(network, pod, "pacs") == "10.0.30.10"
        assert resolved(network, pod, "unknown.dicomnode.svc") == ""
        assert outside.seen() == {}, outside.said()
        for carrier in carriers:
            carrier.close()


def test_without_a_default_route_nothing_outside_can_even_be_sent(network: Network):
    pod = network.attach()
    with Outside(network, attempts=False) as outside:
        assert set(tried(network, pod, *OUTSIDE)) == set(OUTSIDE)
        assert tried(network, pod, "192.0.2.1") == {"192.0.2.1": errno.ENETUNREACH}
        assert outside.seen() == {}
        # and a counter is there: with a route the packet is one
        network.configure(pod.namespace, "route add 192.0.2.0/24 via 10.77.0.1\n")
        assert tried(network, pod, "192.0.2.1") == {}
        assert outside.seen()[pod.namespace] == {"192.0.2.1": 1}


def test_a_name_of_the_world_outside_that_somebody_asks_for_is_listed(network: Network):
    pod = network.attach()
    network.name("model.dicomnode.svc.cluster.local", "10.77.0.99")
    assert resolved(network, pod, "model") == "10.77.0.99"
    assert network.outside_names() == {}
    assert resolved(network, pod, "storage.googleapis.com") == ""
    assert network.outside_names() == {"storage.googleapis.com": {pod.address}}
