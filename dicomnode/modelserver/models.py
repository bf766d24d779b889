"""The models that are served, by name, and how a new configuration replaces them.

Source: ServerCore::ReloadConfig of TensorFlow Serving: the given list is the whole
truth; a model that is not in it is unloaded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicomnode.modelserver.errors import invalid, not_found
from dicomnode.modelserver.manager import ModelManager
from dicomnode.modelserver.versions import Policy

MakeManager = Callable[[str, Path], ModelManager]


class Models:
    """Managers by model name. `make` builds one that is not started yet."""

    def __init__(self, make: MakeManager) -> None:
        self._make = make
        self._managers: dict[str, ModelManager] = {}
        self._lock = threading.Lock()
        self._reloading = threading.Lock()

    def add(self, name: str, base_path: Path) -> ModelManager:
        """Start to serve a model."""
        manager = self._make(name, base_path)
        with self._lock:
            self._managers[name] = manager
        manager.start()
        return manager

    def get(self, name: str) -> ModelManager | None:
        with self._lock:
            return self._managers.get(name)

    def named(self, name: str, version: int | None = None) -> ModelManager:
        """Raises `RequestError` in TensorFlow Serving's words."""
        if not name:
            raise invalid("ModelSpec has no name specified.")
        manager = self.get(name)
        if manager is None:
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise not_found(f"Servable not found for request: {asked}")
        return manager

    @property
    def serving(self) -> bool:
        """Whether every model has a version that answers."""
        with self._lock:
            managers = list(self._managers.values())
        return bool(managers) and all(manager.serving for manager in managers)

    def reload(self, config: Any) -> None:
        """Take over a ModelServerConfig. Raises `RequestError` INVALID_ARGUMENT."""
        if config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest."
                " Only ModelConfigList is currently supported"
            )
        wanted = {entry.name: entry for entry in config.model_config_list.config}
        if len(wanted) != len(config.model_config_list.config):
            raise invalid("Illegal to list model name multiple times in config")
        for entry in wanted.values():
            _check(entry)
        with self._reloading:
            for name, entry in wanted.items():
                manager = self.get(name) or self.add(name, Path(entry.base_path))
                manager.reconfigure(
                    base_path=Path(entry.base_path),
                    policy=_policy(entry.model_version_policy),
                    labels=dict(entry.version_labels),
                )
            with self._lock:
                gone = [
                    self._managers.pop(name) for name in list(self._managers) if name not in wanted
                ]
            for manager in gone:
                manager.stop()

    def stop(self) -> None:
        with self._lock:
            managers = list(self._managers.values())
        for manager in managers:
            manager.stop()


def _check(entry: Any) -> None:
    if not entry.name or not entry.base_path:
        raise invalid("every model config needs a name and a base_path")
    if entry.model_platform not in ("", "tensorflow"):
        raise invalid(f"model_platform must be tensorflow, got {entry.model_platform!r}")


def _policy(proto: Any) -> Policy:
    choice = proto.WhichOneof("policy_choice")
    if choice == "all":
        return Policy(everything=True)
    if choice == "specific":
        return Policy(specific=tuple(proto.specific.versions))
    return Policy(latest=max(1, proto.latest.num_versions))
