"""A pod as its manifest says it, run as a process of this machine.

What Kubernetes promises the container is given, or refused here by an `Unsupported`:

* its own network namespace with an address, its host name, the cluster's name server;
* its own process ids: ending the first ends all;
* a file system made of the image, read-only with `readOnlyRootFilesystem`; each volume at its
  mount path (ConfigMap: its keys as files; emptyDir: empty; claim: a folder of the caller);
* the user and group, no capabilities, no new privileges;
* the environment of the manifest, with `fieldRef` resolved, and nothing of ours;
* with `memory` limits only said: cgroups are not touched.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import image
from tests.cluster.network import Network
from tests.conftest import require_program

Object = dict[str, Any]


class Unsupported(AssertionError):
    """The manifest asks for something that is not carried out here."""


@dataclass
class Volumes:
    """What the volumes of a pod are backed by."""

    claims: dict[str, Path] = field(default_factory=dict)
    """PersistentVolumeClaims by name."""
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    """The data of ConfigMaps by name."""


class Pod:
    """One container's process, started by the constructor."""

    def __init__(
        self,
        manifest: Object,
        *,
        network: Network,
        volumes: Volumes,
        folder: Path,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.manifest = manifest
        metadata, spec = manifest["metadata"], manifest["spec"]
        self.name: str = metadata["name"]
        self.namespace: str = metadata["namespace"]
        self.host_name: str = spec.get("hostname", self.name)
        self._network, self._volumes, self._folder = network, volumes, folder
        folder.mkdir(parents=True)
        (self._container,) = spec["containers"]
        self.log = folder / "log"
        self.machine = network.attach()
        self.address = self.machine.address
        if "subdomain" in spec:
            service = f"{spec['subdomain']}.{self.namespace}.svc.cluster.local"
            network.name(f"{self.host_name}.{service}", self.address)
            network.name(service, self.address)
        self.environment = {**image.environment(), **(environment or {}), **self._environment()}
        script = folder / "start"
        script.write_text(self._script())
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._isolated(script),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={},
                start_new_session=True,
            )

    def wait(self, seconds: float) -> int:
        """The exit code, as Kubernetes would give it (137 after a kill -9)."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.name} did not end within {seconds} s:\n{self.said()}"
            ) from None
        return code if code >= 0 else 128 - code

    def running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """kill -9 of the container, as the kernel's OOM killer or a power cut would."""
        if self.running():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def remove(self) -> None:
        """The pod is gone, and its address with it."""
        self.kill()
        self.machine.detach()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    # What the kubelet does ------------------------------------------------------------------

    def _isolated(self, script: Path) -> list[str]:
        """A shell as root in namespaces of its own; the script gives up what is not due."""
        namespaces = ("--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=SIGKILL")
        return [
            *(require_program("ip"), "netns", "exec", self.machine.namespace),
            *(require_program("unshare"), *namespaces, "--propagation", "private"),
            *("/bin/sh", "-eu", str(script)),
        ]

    def _script(self) -> str:
        root, files = self._folder / "root", self._folder / "files"
        for path in (root, files):
            path.mkdir()
        lines = [
            f"hostname {shlex.quote(self.host_name)}",
            f"mount -t tmpfs -o mode=755 root {_q(root)}",
        ]
        for inside, target in image.links().items():
            lines.append(f"ln -s {shlex.quote(target)} {_q(root / inside[1:])}")
        image.write_programs(files / "programs")
        for inside, outside in {**image.binds(), "/image/bin": files / "programs"}.items():
            lines += _bind(outside, root, inside, read_only=True)
        lines += self._etc(root, files)
        lines += [f"mkdir -p {_q(root / 'proc')}", f"mount -t proc proc {_q(root / 'proc')}"]
        lines += [f"mkdir -p {_q(root / 'dev')}", f"mount --rbind /dev {_q(root / 'dev')}"]
        for mount in self._container.get("volumeMounts", []):
            lines += self._mount(mount, root, files)
        if self._security("readOnlyRootFilesystem"):
            lines.append(f"mount -o remount,ro,bind {_q(root)}")
        lines.append(f"exec {self._entered(root)}")
        return "\n".join(lines) + "\n"

    def _etc(self, root: Path, files: Path) -> list[str]:
        """Files of the root file system, so that volumes can be mounted beside them."""
        (files / "resolv.conf").write_text(self._network.resolv_conf(self.namespace))
        (files / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.host_name}\n")
        (files / "hostname").write_text(f"{self.host_name}\n")
        sources = [Path("/etc", name) for name in image.ETC]
        sources += [files / name for name in ("resolv.conf", "hosts", "hostname")]
        etc = root / "etc"
        copies = [f"cp -aH {_q(path)} {_q(etc)}" for path in sources if path.exists()]
        return [f"mkdir -p {_q(etc)}", *copies]

    def _mount(self, mount: Object, root: Path, files: Path) -> list[str]:
        (volume,) = [
            each for each in self.manifest["spec"]["volumes"] if each["name"] == mount["name"]
        ]
        source = self._source(volume, files / volume["name"]) / mount.get("subPath", "")
        read_only = mount.get("readOnly", False) or "configMap" in volume
        return _bind(source, root, mount["mountPath"], read_only=read_only)

    def _source(self, volume: Object, own: Path) -> Path:
        match volume:
            case {"configMap": {"name": name}}:
                own.mkdir(exist_ok=True)
                for key, text in self._volumes.config_maps[name].items():
                    (own / key).write_text(text)
                return own
            case {"emptyDir": _}:
                own.mkdir(exist_ok=True)
                own.chmod(0o777)
                return own
            case {"persistentVolumeClaim": {"claimName": claim}}:
                return self._volumes.claims[claim]
        raise Unsupported(f"volume {volume}")

    def _entered(self, root: Path) -> str:
        """chroot, then the user and the rights of the manifest, then its command."""
        user = self._security("runAsUser") or 0
        group = self._security("runAsGroup") or user
        command = [require_program("chroot"), str(root), "/usr/bin/env", "-i"]
        command += [f"{name}={value}" for name, value in self.environment.items()]
        command += ["setpriv", "--reuid", str(user), "--regid", str(group)]
        command += ["--groups", str(self._security("fsGroup") or group)]
        if self._security("allowPrivilegeEscalation") is False:
            command.append("--no-new-privs")
        if (self._security("capabilities") or {}).get("drop") == ["ALL"]:
            command += ["--bounding-set", "-all", "--inh-caps", "-all"]
        command += [*self._container["command"], *self._container.get("args", [])]
        return shlex.join(command)

    def _security(self, key: str) -> Any:
        """Of the container, or else of the pod."""
        for context in (self._container, self.manifest["spec"]):
            if key in context.get("securityContext", {}):
                return context["securityContext"][key]
        return None

    def _environment(self) -> dict[str, str]:
        return {each["name"]: self._value(each) for each in self._container.get("env", [])}

    def _value(self, variable: Object) -> str:
        match variable:
            case {"value": str(value)}:
                return value
            case {"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}:
                return self.address
            case {"valueFrom": {"fieldRef": {"fieldPath": path}}} if path.startswith("metadata."):
                return str(self.manifest["metadata"][path.removeprefix("metadata.")])
        raise Unsupported(f"env {json.dumps(variable)}")


def _bind(source: Path, root: Path, inside: str, *, read_only: bool) -> list[str]:
    target = root / inside.lstrip("/")
    lines = [f"mkdir -p {_q(target)}", f"mount --rbind {_q(source)} {_q(target)}"]
    if read_only:
        lines.append(f"mount -o remount,ro,bind {_q(target)}")
    return lines


def _q(path: Path) -> str:
    return shlex.quote(str(path))
