"""Machines on a switch: a network namespace each, and one name server for all.

As in a cluster, every pod has an address of its own, reaches every other, and asks a name
server that knows `{host}.{service}.{namespace}.svc.cluster.local` for the pods of a headless
Service; shorter names work through the search list that the kubelet writes into resolv.conf.
The switch and the name server live in a namespace too, so that this machine's own network is
neither used nor changed.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
from pathlib import Path

from tests.acceptance.node import until
from tests.conftest import require_program

DOMAIN = "svc.cluster.local"
_SERVER = "10.77.0.1"
_RUNS = itertools.count(1)
_NAME = re.compile(r"dn([0-9a-f]+)-\d+-")


def run(*command: str) -> str:
    """The output of a program that has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


class Network:
    """The switch and its name server. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._ip, dnsmasq = require_program("ip"), require_program("dnsmasq")
        self._prefix = f"dn{os.getpid():x}-{next(_RUNS)}"
        self._hub = self.hub = f"{self._prefix}-hub"
        """The namespace of the switch: what a board itself sends comes from there."""
        self._folder = folder
        self._hosts = folder / "hosts"
        self._numbers = itertools.count(2)
        self._records: dict[str, set[str]] = {}
        self._namespaces: list[str] = []
        self._dnsmasq = (
            *(dnsmasq, "--keep-in-foreground", "--conf-file=/dev/null", "--user=root"),
            *(
                "--no-resolv",
                "--no-hosts",
                "--local=/cluster.local/",
                f"--addn-hosts={self._hosts}",
            ),
            *("--bind-interfaces", f"--listen-address={_SERVER}", "--local-ttl=0"),
            f"--pid-file={folder / 'dnsmasq.pid'}",
        )
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Network:
        self._remove_left_overs()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._hosts.write_text("")
        try:
            self._add_namespace(self._hub)
            self._in_hub("link", "add", "switch", "type", "bridge")
            self._in_hub("addr", "add", f"{_SERVER}/16", "dev", "switch")
            self._in_hub("link", "set", "switch", "up")
            self._server = subprocess.Popen(
                [self._ip, "netns", "exec", self._hub, *self._dnsmasq],
                stdout=subprocess.DEVNULL,
                stderr=(self._folder / "dnsmasq.log").open("wb"),
            )
            self._await_server()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(10)
        for name in reversed(self._namespaces):
            run(self._ip, "netns", "del", name)
        self._namespaces.clear()

    def _await_server(self) -> None:
        """Until its handlers are there: a SIGHUP before that would end it."""
        written = self._folder / "dnsmasq.pid"
        until(lambda: written.is_file() and written.read_text(), seconds=20, what="a name server")
        self._require_server()

    def _require_server(self) -> None:
        assert self._server is not None
        log = (self._folder / "dnsmasq.log").read_text()
        assert self._server.poll() is None, f"the name server has ended: {log}"

    def attach(self) -> Machine:
        """A new machine on the switch, with the next address."""
        number = next(self._numbers)
        machine = Machine(
            namespace=f"{self._prefix}-{number}",
            address=f"10.77.{number // 256}.{number % 256}",
            network=self,
        )
        self._add_namespace(machine.namespace)
        port = f"port{number}"
        link = ("link", "add", port, "type", "veth", "peer", "name", "eth0")
        self._in_hub(*link, "netns", machine.namespace)
        self._in_hub("link", "set", port, "master", "switch", "up")
        inside = (self._ip, "-n", machine.namespace)
        run(*inside, "addr", "add", f"{machine.address}/16", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        return machine

    def detach(self, machine: Machine) -> None:
        """The machine is gone from the network, and its names from the name server."""
        if machine.namespace in self._namespaces:
            self._namespaces.remove(machine.namespace)
            run(self._ip, "netns", "del", machine.namespace)
        for addresses in self._records.values():
            addresses.discard(machine.address)
        self._publish()

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
            f"nameserver {_SERVER}\noptions ndots:5 timeout:2 attempts:3\n"
        )

    def _remove_left_overs(self) -> None:
        """Namespaces of a test process that was killed."""
        for line in run(self._ip, "netns", "list").splitlines():
            found = _NAME.match(line)
            if found and not Path("/proc", str(int(found[1], 16))).exists():
                run(self._ip, "netns", "del", line.split()[0])

    def _publish(self) -> None:
        lines = [
            f"{address} {name}\n"
            for name, addresses in sorted(self._records.items())
            for address in sorted(addresses)
        ]
        self._hosts.write_text("".join(lines))
        self._require_server()
        assert self._server is not None
        self._server.send_signal(signal.SIGHUP)  # dnsmasq reads its files again

    def _add_namespace(self, name: str) -> None:
        run(self._ip, "netns", "add", name)
        self._namespaces.append(name)
        run(self._ip, "-n", name, "link", "set", "lo", "up")

    def _in_hub(self, *arguments: str) -> None:
        run(self._ip, "-n", self._hub, *arguments)


class Machine:
    """A network namespace with an address on the switch."""

    def __init__(self, *, namespace: str, address: str, network: Network) -> None:
        self.namespace, self.address, self._network = namespace, address, network

    def detach(self) -> None:
        self._network.detach(self)
