"""What the volumes of a pod are backed by: folders of this machine.

ConfigMaps, Secrets and projected volumes become files owned by root and the pod's `fsGroup`,
with the modes of the manifest; an emptyDir is an empty folder of that group; a claim is a
folder of the caller. Sizes and media are not limited here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.supported import Object, Unsupported

_MODE = 0o644


@dataclass
class Volumes:
    """What a pod's manifest refers to by name."""

    claims: dict[str, Path] = field(default_factory=dict)
    """PersistentVolumeClaims by name."""
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    """The data of ConfigMaps by name."""
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    """The data of Secrets by name, decoded."""

    def keys(self, kind: str, reference: Object) -> dict[str, str]:
        """The data of a ConfigMap or Secret; a missing one is empty only where that is allowed."""
        name = reference.get("name", reference.get("secretName"))
        known = self.config_maps if kind == "configMap" else self.secrets
        if name in known:
            return known[name]
        if reference.get("optional"):
            return {}
        raise AssertionError(f"no {kind} {name!r}; there are: {', '.join(sorted(known))}")

    def source(self, volume: Object, own: Path, group: int) -> tuple[Path, bool]:
        """The folder behind a volume, and whether nobody may write to it."""
        match volume:
            case {"configMap": reference}:
                self._write(own, "configMap", reference, group, reference.get("defaultMode"))
                return own, True
            case {"secret": reference}:
                self._write(own, "secret", reference, group, reference.get("defaultMode"))
                return own, True
            case {"projected": {"sources": sources, **rest}}:
                for source in sources:
                    ((kind, reference),) = source.items()
                    if kind not in ("configMap", "secret"):
                        raise Unsupported(f"volume {volume['name']}: projected {kind}")
                    self._write(own, kind, reference, group, rest.get("defaultMode"))
                return own, True
            case {"emptyDir": _}:
                own.mkdir(exist_ok=True)
                os.chown(own, 0, group)
                own.chmod(0o2777)
                return own, False
            case {"persistentVolumeClaim": {"claimName": claim, **rest}}:
                if claim not in self.claims:
                    raise AssertionError(f"no claim {claim!r}; there are: {sorted(self.claims)}")
                return self.claims[claim], bool(rest.get("readOnly", False))
        raise Unsupported(f"volume {volume}")

    def _write(self, own: Path, kind: str, reference: Object, group: int, mode: int | None) -> None:
        own.mkdir(exist_ok=True)
        data = self.keys(kind, reference)
        items = reference.get("items", [{"key": key, "path": key} for key in data])
        for item in items:
            path = own / item["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(data[item["key"]])
            os.chown(path, 0, group)
            path.chmod(item.get("mode", _MODE if mode is None else mode))
