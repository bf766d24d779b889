"""Machines with a network namespace each, the boards between them, and one name server for all.

As in a cluster, every pod has an address of its own, reaches every other, and asks a name
server that knows `{host}.{service}.{namespace}.svc.cluster.local` for the pods of a headless
Service; shorter names work through the search list that the kubelet writes into resolv.conf.

Nothing is switched: every packet from one machine to another is routed by the boards, which are
one namespace, the hub. Its forward chain so sees everything, as that of a board with a routed
pod network does; policies, Services and counters hook in there. Outside the cluster and inside
the hospital there are hosts of another subnet. There is no default route anywhere and no IPv6,
and this machine's own network is neither used nor changed.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tests.acceptance.node import until
from tests.conftest import require_program

DOMAIN = "svc.cluster.local"
PODS, SERVICES, HOSPITAL = "10.77.0.0/16", "10.78.0.0/16", "10.0.0.0/16"
INSIDE = (PODS, SERVICES, HOSPITAL)
"""Every address that there is, but for a machine's own loopback."""
BOARDS, BOARDS_IN_THE_HOSPITAL = "10.77.0.1", "10.0.10.11"
"""The addresses of the boards themselves: site.yaml's, and the one that pods see."""
NAME_SERVER = "10.77.255.53"
JUDGED_BEHIND_THE_BALANCER = 299
"""The mark of a packet to a balancer that speaks to pods from its clients' addresses."""
_ROUTED_BEFORE_LOCAL = 100
_RUNS = itertools.count(1)
_NAME = re.compile(r"dn([0-9a-f]+)-\d+-")
_ASKED = re.compile(r"query\[\w+\] (\S+) from (\S+)")
_KERNEL = {
    # deploy/node-setup's IPv6 policy
    "net.ipv6.conf.all.disable_ipv6": 1,
    "net.ipv6.conf.default.disable_ipv6": 1,
    "net.ipv6.conf.lo.disable_ipv6": 0,
}
_KERNEL_OF_BOARDS = {
    "net.ipv4.ip_forward": 1,
    # a balancer speaks to pods from its clients' addresses, the boards' among them
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv4.conf.all.accept_local": 1,
}


def run(*command: str, text: str = "") -> str:
    """The output of a program that has to succeed."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}\n{text}"
    return done.stdout


class Network:
    """The boards, the wires and the name server. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._ip, self._program = require_program("ip"), require_program("dnsmasq")
        self._prefix = f"dn{os.getpid():x}-{next(_RUNS)}"
        self.hub = f"{self._prefix}-hub"
        """The namespace of the boards: what a board itself sends comes from there."""
        self.folder = folder
        """What is written down of it."""
        self._hosts, self._log = folder / "hosts", folder / "dnsmasq.log"
        self._pods, self._others = itertools.count(2), itertools.count(1)
        self._balancers = itertools.count(101)
        self._services = itertools.count(1)
        self._records: dict[str, set[str]] = {}
        self.namespaces: list[str] = []
        """Of everything that there is now, the hub first."""
        self.joined: list[Callable[[str], None]] = []
        """Called with each namespace that is new."""
        self.leaving: list[Callable[[str], None]] = []
        """Called with each that will be gone, but at the very end."""
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Network:
        self._remove_left_overs()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._hosts.write_text("")
        try:
            self._start_boards()
            self._start_name_server()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(10)
        for name in reversed(self.namespaces):
            self._remove(name)
        self.namespaces.clear()

    # Machines ---------------------------------------------------------------------------------

    def attach(self) -> Machine:
        """A new machine of the cluster, with the next address of a pod."""
        number = next(self._pods)
        return self._join(f"{number}", f"10.77.{number // 256}.{number % 256}")

    def attach_host(self, address: str, *names: str) -> Machine:
        """A machine of the hospital that is none of the cluster: a modality, the PACS.

        Its address is one of `HOSPITAL`; the name server answers the names with it.
        """
        machine = self._join(f"host{next(self._others)}", address)
        for name in names:
            self.name(name, address)
        return machine

    def attach_balancer(self) -> Machine:
        """A machine for a LoadBalancer, with an address of the boards' subnet."""
        return self._join(f"host{next(self._others)}", f"10.0.10.{next(self._balancers)}")

    def service_address(self) -> str:
        """The next address of `SERVICES`. No machine has it: the boards translate it."""
        return f"10.78.0.{next(self._services)}"

    def detach(self, machine: Machine) -> None:
        """The machine is gone from the network, and its names from the name server."""
        if machine.namespace in self.namespaces:
            for each in self.leaving:
                each(machine.namespace)
            self.namespaces.remove(machine.namespace)
            run(self._ip, "netns", "del", machine.namespace)
        for addresses in self._records.values():
            addresses.discard(machine.address)
        self._publish()

    def configure(self, namespace: str, commands: str) -> None:
        """Commands of `ip`, a line each."""
        run(self._ip, "-n", namespace, "-batch", "-", text=commands)

    def inside(self, namespace: str, *command: str, text: str = "") -> str:
        """The output of a program that runs there and has to succeed."""
        return run(self._ip, "netns", "exec", namespace, *command, text=text)

    def kernel(self, namespace: str, settings: dict[str, int]) -> None:
        """Settings of sysctl."""
        written = [f"{key}={value}" for key, value in settings.items()]
        self.inside(namespace, require_program("sysctl"), "--quiet", "--write", *written)

    def filter(self, namespace: str, rules: str) -> None:
        """Rules of nftables: all of them from one moment on, or none."""
        self.inside(namespace, require_program("nft"), "--file", "-", text=rules)

    # Names ------------------------------------------------------------------------------------

    def name(self, name: str, address: str) -> None:
        """An A record; a name may have several, as that of a headless Service has."""
        self._records.setdefault(name, set()).add(address)
        self._publish()

    def records(self, name: str, addresses: set[str]) -> None:
        """The A records of a name, in the place of those that it had; none: it is unknown."""
        if self._records.get(name, set()) != addresses:
            self._records[name] = set(addresses)
            self._publish()

    def resolv_conf(self, namespace: str) -> str:
        """What the kubelet would write for a pod of this namespace of Kubernetes."""
        return (
            f"search {namespace}.{DOMAIN} {DOMAIN} cluster.local\n"
            f"nameserver {NAME_SERVER}\noptions ndots:5 timeout:2 attempts:3\n"
        )

    def outside_names(self) -> dict[str, set[str]]:
        """Names that somebody asked for and that are nobody's here, with who asked."""
        found: dict[str, set[str]] = {}
        for name, asker in _ASKED.findall(self._log.read_text(errors="replace")):
            known = name == "cluster.local" or name.endswith(".cluster.local")
            if not known and name not in self._records:
                found.setdefault(name, set()).add(asker)
        return found

    def _publish(self) -> None:
        lines = [
            f"{address} {name}\n"
            for name, addresses in sorted(self._records.items())
            for address in sorted(addresses)
        ]
        # by another file: one that is being written would be read as one without names
        written = self._hosts.with_suffix(".new")
        written.write_text("".join(lines))
        written.replace(self._hosts)
        self._require_server()
        assert self._server is not None
        self._server.send_signal(signal.SIGHUP)  # dnsmasq reads its files again

    # What it is made of -----------------------------------------------------------------------

    def _start_boards(self) -> None:
        self._add_namespace(self.hub, _KERNEL | _KERNEL_OF_BOARDS)
        self.configure(
            self.hub,
            f"addr add {BOARDS}/32 dev lo\n"
            f"addr add {BOARDS_IN_THE_HOSPITAL}/32 dev lo\n"
            # what a Service's address is translated to is routed after that, but needs a route
            f"route add {SERVICES} dev lo src {BOARDS}\n"
            # a balancer's rules come first: it also answers for the boards' own address
            f"rule add pref {_ROUTED_BEFORE_LOCAL} lookup local\n"
            "rule del pref 0\n",
        )

    def _start_name_server(self) -> None:
        machine = self._join("names", NAME_SERVER)
        command = [
            *(self._program, "--keep-in-foreground", "--conf-file=/dev/null", "--user=root"),
            *("--no-resolv", "--no-hosts", "--local=/cluster.local/"),
            *(f"--addn-hosts={self._hosts}", "--local-ttl=0"),
            *("--bind-interfaces", f"--listen-address={NAME_SERVER}"),
            *(f"--pid-file={self.folder / 'dnsmasq.pid'}", "--log-queries", "--log-facility=-"),
        ]
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                [self._ip, "netns", "exec", machine.namespace, *command],
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        # until its handlers are there: a SIGHUP before that would end it
        written = self.folder / "dnsmasq.pid"
        until(lambda: written.is_file() and written.read_text(), seconds=20, what="a name server")
        self._require_server()

    def _require_server(self) -> None:
        assert self._server is not None
        said = self._log.read_text(errors="replace")
        assert self._server.poll() is None, f"the name server has ended: {said}"

    def _join(self, short: str, address: str) -> Machine:
        """A machine, and its wire to the boards."""
        machine = Machine(namespace=f"{self._prefix}-{short}", address=address, network=self)
        port = machine.port
        self._add_namespace(machine.namespace, _KERNEL)
        own = BOARDS if address.startswith("10.77.") else BOARDS_IN_THE_HOSPITAL
        self.configure(
            self.hub,
            f"link add {port} type veth peer name eth0 netns {machine.namespace}\n"
            f"link set {port} up\n"
            f"route add {address}/32 dev {port} src {own}\n",
        )
        routes = "".join(f"route add {each} via {BOARDS} src {address}\n" for each in INSIDE)
        self.configure(
            machine.namespace,
            f"addr add {address}/32 dev eth0\nlink set eth0 up\n"
            f"route add {BOARDS}/32 dev eth0\n{routes}",
        )
        for each in self.joined:
            each(machine.namespace)
        return machine

    def _add_namespace(self, name: str, kernel: dict[str, int]) -> None:
        run(self._ip, "netns", "add", name)
        self.namespaces.append(name)
        self.configure(name, "link set lo up\n")
        self.kernel(name, kernel)

    def _remove_left_overs(self) -> None:
        """Namespaces of a test process that was killed."""
        for line in run(self._ip, "netns", "list").splitlines():
            found = _NAME.match(line)
            if found and not Path("/proc", str(int(found[1], 16))).exists():
                self._remove(line.split()[0])

    def _remove(self, namespace: str) -> None:
        """With the processes that a failed test has left in it."""
        for process in self._processes(namespace):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        run(self._ip, "netns", "del", namespace)

    def _processes(self, namespace: str) -> Iterator[int]:
        yield from map(int, run(self._ip, "netns", "pids", namespace).split())


class Machine:
    """A network namespace with an address and a wire to the boards."""

    def __init__(self, *, namespace: str, address: str, network: Network) -> None:
        self.namespace, self.address, self._network = namespace, address, network
        self.port = f"port-{namespace.rpartition('-')[2]}"
        """The boards' end of its wire."""

    def detach(self) -> None:
        self._network.detach(self)
