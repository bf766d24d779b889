"""The start script of a container: file system, user and rights as the manifest has them.

* a file system made of the image, read-only with `readOnlyRootFilesystem`; each volume at its
  mount path;
* the user and groups, no capabilities, no new privileges;
* the environment of the manifest and the image, and nothing of ours.

Seccomp profiles and the limits of cgroups are not carried out.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from tests.cluster import image
from tests.cluster.image import Image
from tests.cluster.supported import Object, Unsupported
from tests.cluster.volumes import Volumes
from tests.conftest import require_program
from tests.peers.manifests import cores_of

_MUCH_CORES, _NICENESS = 0.5, -10


class Container:
    """One container of a pod that is known already: its name, address, volumes."""

    def __init__(
        self,
        manifest: Object,
        *,
        pod: Object,
        address: str,
        volumes: Volumes,
        more_environment: dict[str, str],
    ) -> None:
        self.manifest, self._pod, self._address, self._volumes = manifest, pod, address, volumes
        self.image: Image = image.find(manifest["image"])
        image.require_programs(self.image)
        self.user: int = self.security("runAsUser") or 0
        self.group: int = self.security("runAsGroup") or self.user
        self.volume_group: int = self.security("fsGroup") or self.group
        if self.security("runAsNonRoot") and self.user == 0:
            raise Unsupported(f"{manifest['name']}: runAsNonRoot without a runAsUser")
        self.environment = {
            **image.environment(self.image),
            **more_environment,
            **self._environment(),
        }

    def security(self, key: str) -> Any:
        """Of the container, or else of the pod."""
        for context in (self.manifest, self._pod["spec"]):
            if key in context.get("securityContext", {}):
                return context["securityContext"][key]
        return None

    def script(self, host_name: str, root: Path, files: Path, etc: dict[str, str]) -> str:
        """Run as root in namespaces of its own; it ends by becoming the container's process.

        `root` is where its file system is put together, `files` where that of its volumes lies
        which is nobody's claim.
        """
        for path in (root, files):
            path.mkdir(exist_ok=True)
        lines = [
            f"hostname {shlex.quote(host_name)}",
            f"mount -t tmpfs -o mode=755 root {_q(root)}",
        ]
        for inside, target in image.links().items():
            lines.append(f"ln -s {shlex.quote(target)} {_q(root / inside[1:])}")
        image.write_programs(self.image, files / "programs")
        for inside, outside in {**image.binds(), "/image/bin": files / "programs"}.items():
            lines += _bind(outside, root, inside, read_only=True)
        lines += self._etc(root, files, etc)
        lines += [f"mkdir -p {_q(root / 'proc')}", f"mount -t proc proc {_q(root / 'proc')}"]
        lines += [f"mkdir -p {_q(root / 'dev')}", f"mount --rbind /dev {_q(root / 'dev')}"]
        mounts = self.manifest.get("volumeMounts", [])
        for mount in sorted(mounts, key=lambda each: len(Path(each["mountPath"]).parts)):
            lines += self._mount(mount, root, files)
        if self.security("readOnlyRootFilesystem"):
            lines.append(f"mount -o remount,ro,bind {_q(root)}")
        command = [*self._command(), *self._arguments()]
        chroot = [require_program("chroot"), str(root), *self.as_its_user(command)]
        lines.append(f"exec {shlex.join([*self._precedence(), *chroot])}")
        return "\n".join(lines) + "\n"

    def as_its_user(self, command: list[str]) -> list[str]:
        """A command inside its file system with its environment, user and rights."""
        found = ["/usr/bin/env", "-i"]
        found += [f"{name}={value}" for name, value in self.environment.items()]
        found += ["setpriv", "--reuid", str(self.user), "--regid", str(self.group)]
        found += ["--groups", str(self.volume_group)]
        if self.security("allowPrivilegeEscalation") is False:
            found.append("--no-new-privs")
        capabilities = self.security("capabilities") or {}
        if capabilities.get("drop") == ["ALL"] and "add" not in capabilities:
            found += ["--bounding-set", "-all", "--inh-caps", "-all"]
        elif capabilities:
            raise Unsupported(f"capabilities {capabilities}")
        return [*found, *command]

    def port(self, named: str | int) -> int:
        """By number, or by the name that the container gives it."""
        if isinstance(named, int):
            return named
        for each in self.manifest.get("ports", []):
            if each.get("name") == named:
                return int(each["containerPort"])
        raise AssertionError(f"{self.manifest['name']} has no port {named!r}")

    def _precedence(self) -> list[str]:
        """A board keeps the processor that a pod asks for. Here all boards share one machine, so
        who asks for much goes before the others; where that is not allowed, `nice` goes on."""
        requests = self.manifest.get("resources", {}).get("requests", {})
        much = cores_of(requests.get("cpu", "0")) >= _MUCH_CORES
        return [require_program("nice"), f"--adjustment={_NICENESS}"] if much else []

    def _command(self) -> list[str]:
        return list(self.manifest.get("command", self.image.entrypoint))

    def _arguments(self) -> list[str]:
        arguments = list(self.manifest.get("args", []))
        if any("$(" in each for each in [*arguments, *self._command()]):
            raise Unsupported(f"{self.manifest['name']}: variables in its arguments")
        return arguments

    def _etc(self, root: Path, files: Path, written: dict[str, str]) -> list[str]:
        """Files of the root file system, so that volumes can be mounted beside them."""
        for name, text in {**written, "passwd": image.passwd(self.image)}.items():
            (files / name).write_text(text)
        sources = [Path("/etc", name) for name in image.ETC]
        sources += [files / name for name in (*written, "passwd")]
        etc = root / "etc"
        copies = [f"cp -aH {_q(path)} {_q(etc)}" for path in sources if path.exists()]
        return [f"mkdir -p {_q(etc)}", *copies]

    def _mount(self, mount: Object, root: Path, files: Path) -> list[str]:
        (volume,) = [each for each in self._pod["spec"]["volumes"] if each["name"] == mount["name"]]
        unknown = set(mount) - {"name", "mountPath", "readOnly", "subPath"}
        if unknown:
            raise Unsupported(f"volumeMount {mount['name']}: {sorted(unknown)}")
        source, read_only = self._volumes.source(
            volume, files / f"volume-{volume['name']}", self.volume_group
        )
        return _bind(
            source / mount.get("subPath", ""),
            root,
            mount["mountPath"],
            read_only=read_only or mount.get("readOnly", False),
        )

    def _environment(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in self.manifest.get("envFrom", []):
            ((kind, reference),) = source.items()
            if kind not in ("secretRef", "configMapRef"):
                raise Unsupported(f"envFrom {json.dumps(source)}")
            found.update(self._volumes.keys(_KINDS[kind], reference))
        for each in self.manifest.get("env", []):
            found[each["name"]] = self._value(each)
        return found

    def _value(self, variable: Object) -> str:
        match variable:
            case {"value": str(value)} if "$(" not in value:
                return value
            case {"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}:
                return self._address
            case {"valueFrom": {"fieldRef": {"fieldPath": path}}} if path.startswith("metadata."):
                return str(self._pod["metadata"][path.removeprefix("metadata.")])
            case {"valueFrom": {"secretKeyRef": reference}}:
                return self._volumes.keys("secret", reference)[reference["key"]]
            case {"valueFrom": {"configMapKeyRef": reference}}:
                return self._volumes.keys("configMap", reference)[reference["key"]]
        raise Unsupported(f"env {json.dumps(variable)}")


_KINDS = {"secretRef": "secret", "configMapRef": "configMap"}


def _bind(source: Path, root: Path, inside: str, *, read_only: bool) -> list[str]:
    target = root / inside.lstrip("/")
    lines = [f"mkdir -p {_q(target)}", f"mount --rbind {_q(source)} {_q(target)}"]
    if read_only:
        lines.append(f"mount -o remount,ro,bind {_q(target)}")
    return lines


def _q(path: Path) -> str:
    return shlex.quote(str(path))
