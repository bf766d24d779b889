"""What carries a Service that has an address of its own to the pods behind it.

A LoadBalancer is a real HAProxy on a machine of its own. With `externalTrafficPolicy: Local` the
pod sees the client's address, as from ServiceLB and MetalLB: HAProxy opens its connections
from there, and the boards lead the answers back to it. Otherwise the pod sees the balancer's.

Every other Service is translated by the boards, as kube-proxy does: the pod sees the client,
and with no pod behind it a connection is refused.

Both take what is sent to a port of the Service to one of its backends; who is a backend is
said by `set_backends`. Connections that are open stay with theirs until one side ends them.
"""

from __future__ import annotations

import csv
import itertools
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from tests.acceptance.node import until
from tests.cluster.network import HOSPITAL, JUDGED_BEHIND_THE_BALANCER, PODS, Network
from tests.cluster.supported import Object, Unsupported
from tests.conftest import require_program

Backends = Mapping[int, set[tuple[str, int]]]
"""Port of the Service -> address and port of each pod behind it."""
_SLOTS = 8
_NOBODY = "192.0.2.1:9"
_MARKS = itertools.count(300)  # above the numbers of the kernel's own routing tables
_CHANGED = ("IP changed from ", "no need to change ", "port changed ")
"""What HAProxy answers to a new address of a server when all is well."""


class Carrier(Protocol):
    """What both kinds have in common."""

    address: str

    def set_backends(self, backends: Backends) -> None:
        """From now on new connections go to these, and to no others."""

    def close(self) -> None:
        """The address is nobody's any more."""


def carry(network: Network, service: Object, folder: Path) -> Carrier:
    """By the Service's type; at first there is nobody behind it."""
    for port in service["spec"]["ports"]:
        if port.get("protocol", "TCP") != "TCP":
            raise Unsupported(f"Service {service['metadata']['name']}: {port['protocol']}")
    if service["spec"].get("type", "ClusterIP") == "LoadBalancer":
        return Balancer(network, service, folder)
    return Translation(network, service)


class Balancer:
    """A LoadBalancer. Also a context manager."""

    def __init__(self, network: Network, service: Object, folder: Path) -> None:
        """`folder` is made; it is the balancer's own."""
        self._network, self._folder = network, folder
        self.name: str = service["metadata"]["name"]
        self._ports = [int(each["port"]) for each in service["spec"]["ports"]]
        policy = service["spec"].get("externalTrafficPolicy", "Cluster")
        self.keeps_the_client = policy == "Local"
        self._slots: dict[int, list[tuple[str, int] | None]] = {
            port: [None] * _SLOTS for port in self._ports
        }
        folder.mkdir(parents=True)
        self._short = tempfile.TemporaryDirectory(prefix="haproxy-")
        self._control = Path(self._short.name) / "control"  # HAProxy takes 97 characters at most
        self._mark = next(_MARKS)
        self._machine = network.attach_balancer()
        self.address = self._machine.address
        if self.keeps_the_client:
            self._lead_answers_back()
        self._process = self._started()
        self._closed = False

    def __enter__(self) -> Balancer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_backends(self, backends: Backends) -> None:
        """A slot that loses its pod takes no new connection and keeps its open ones."""
        for port, slots in self._slots.items():
            wanted = set(backends.get(port, set()))
            for number, pod in enumerate(slots):
                if pod is not None and pod not in wanted:
                    self._say(f"set server port-{port}/pod{number + 1} state maint")
                    slots[number] = None
            for pod in sorted(wanted - {each for each in slots if each is not None}):
                self._fill(port, slots, pod)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._process.terminate()
        self._process.wait(10)
        self._short.cleanup()
        self._machine.detach()
        if self.keeps_the_client:
            self._forget_answers()

    def connections(self) -> dict[str, int]:
        """How many each pod has been given, `address:port` -> number, in all so far."""
        found: dict[str, int] = {}
        rows = csv.DictReader(self._say("show stat").removeprefix("# ").splitlines())
        for row in rows:
            if row["svname"].startswith("pod") and row["addr"] != _NOBODY:
                found[row["addr"]] = found.get(row["addr"], 0) + int(row["stot"] or 0)
        return found

    # The client's address ---------------------------------------------------------------------

    def _lead_answers_back(self) -> None:
        """A pod answers the client; the boards know the connection and send it here instead."""
        network, mark, port = self._network, self._mark, self._machine.port
        network.filter(
            network.hub,
            f"""table ip balancer{mark} {{
                chain prerouting {{
                    type filter hook prerouting priority mangle
                    iifname "{port}" ct mark set {mark}
                    iifname != "{port}" ct mark {mark} meta mark set {mark}
                }}
                chain output {{
                    # a policy's refusal is an answer too
                    type route hook output priority mangle
                    ct mark {mark} meta mark set {mark}
                }}
                chain forward {{
                    type filter hook forward priority -10
                    ip daddr {self.address} meta mark set {JUDGED_BEHIND_THE_BALANCER}
                }}
            }}
            """,
        )
        routes = "".join(
            f"route add {each} via {self.address} dev {port} onlink table {mark}\n"
            for each in (PODS, HOSPITAL)
        )
        network.configure(network.hub, f"{routes}rule add pref 50 fwmark {mark} lookup {mark}\n")
        network.filter(
            self._machine.namespace,
            """table ip answers {
                chain prerouting {
                    type filter hook prerouting priority mangle
                    socket transparent 1 meta mark set 1
                }
            }
            """,
        )
        local = "".join(f"route add local {each} dev lo table 1\n" for each in (PODS, HOSPITAL))
        network.configure(self._machine.namespace, f"{local}rule add fwmark 1 lookup 1\n")

    def _forget_answers(self) -> None:
        hub, mark = self._network.hub, self._mark
        self._network.configure(hub, f"rule del fwmark {mark} lookup {mark}\n")
        self._network.filter(hub, f"delete table ip balancer{mark}\n")

    # HAProxy ----------------------------------------------------------------------------------

    def _fill(self, port: int, slots: list[tuple[str, int] | None], pod: tuple[str, int]) -> None:
        if None not in slots:
            raise Unsupported(f"Service {self.name}: more than {_SLOTS} pods")
        number = slots.index(None)
        server = f"port-{port}/pod{number + 1}"
        self._say(f"set server {server} addr {pod[0]} port {pod[1]}")
        self._say(f"set server {server} state ready")
        slots[number] = pod

    def _started(self) -> subprocess.Popen[bytes]:
        path = self._folder / "haproxy.cfg"
        path.write_text(self._configuration())
        command = [require_program("haproxy"), "-db", "-f", str(path)]
        with (self._folder / "haproxy.log").open("wb") as log:
            process = subprocess.Popen(
                [require_program("ip"), "netns", "exec", self._machine.namespace, *command],
                stdout=log,
                stderr=log,
            )
        until(lambda: self._listens(process), seconds=20, what=f"HAProxy of {self.name}")
        return process

    @property
    def _log(self) -> Path:
        return self._folder / "haproxy.log"

    def _listens(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, self._log.read_text(errors="replace")
        with suppress(OSError):
            return bool(self._say("show info"))
        return False

    def _configuration(self) -> str:
        source = "    source 0.0.0.0 usesrc clientip\n" if self.keeps_the_client else ""
        head = f"""global
    stats socket {self._control} mode 600 level admin
defaults
    mode tcp
    balance roundrobin
    timeout connect 5s
    timeout client 10m
    timeout server 10m
    # a pod that has gone since is not asked again, another is
    retries 1
    option redispatch 1
"""
        sections = [
            f"listen port-{port}\n"
            f"    bind {self.address}:{port}\n{source}"
            f"    server-template pod 1-{_SLOTS} {_NOBODY} disabled\n"
            for port in self._ports
        ]
        return head + "".join(sections)

    def _say(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self._control))
            connection.sendall(f"{command}\n".encode())
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        text = answer.decode().strip()
        if command.startswith("set ") and text and not text.startswith(_CHANGED):
            raise AssertionError(f"HAProxy of {self.name}: {command}: {text}")
        return text


class Translation:
    """A Service that no machine has the address of."""

    def __init__(self, network: Network, service: Object) -> None:
        self._network = network
        self._ports = [int(each["port"]) for each in service["spec"]["ports"]]
        self.address = network.service_address()
        self._table = f"service{next(_MARKS)}"
        refused = f"ip daddr {self.address} meta l4proto tcp reject with tcp reset"
        # without a rule that asks for connections, the kernel would forget those that are open
        # once the last pod is taken from behind the Service
        network.filter(
            network.hub,
            f"""table ip {self._table} {{
                chain of_pods {{ type nat hook prerouting priority dstnat; }}
                chain of_boards {{ type nat hook output priority -100; }}
                chain untranslated_of_pods {{
                    type filter hook forward priority -10
                    ct state established accept
                    {refused}
                }}
                chain untranslated_of_boards {{
                    type filter hook output priority 10
                    ct state established accept
                    {refused}
                }}
            }}
            """,
        )

    def set_backends(self, backends: Backends) -> None:
        chains = [f"ip {self._table} {name}" for name in ("of_pods", "of_boards")]
        rules = [
            f"ip daddr {self.address} tcp dport {port} dnat to numgen random mod {len(pods)} "
            f"map {{ {_numbered(pods)} }}"
            for port in self._ports
            if (pods := backends.get(port, set()))
        ]
        lines = [f"flush chain {chain}" for chain in chains]
        lines += [f"add rule {chain} {rule}" for chain in chains for rule in rules]
        self._network.filter(self._network.hub, "\n".join(lines) + "\n")

    def close(self) -> None:
        self._network.filter(self._network.hub, f"delete table ip {self._table}\n")


def _numbered(pods: set[tuple[str, int]]) -> str:
    return ", ".join(
        f"{number} : {address} . {port}" for number, (address, port) in enumerate(sorted(pods))
    )
