"""Model cards read from the model directory, by version."""

from __future__ import annotations

import threading
from pathlib import Path

from dicomnode.errors import ModelCardMissing
from dicomnode.modelcard import CARD_PATH, ModelCard

WITHDRAWN = "withdrawn"
"""Where a rollback moves a version. A study that it judged before still needs its card."""

_MAXIMUM_BYTES = 16 * 1024 * 1024

_Stamp = tuple[int, int, int]


class DirectoryModelCards:
    """`BASE/<version>/assets.extra/model_card.json`, read again when the file changes."""

    def __init__(self, base_path: Path) -> None:
        self._base_path = base_path
        self._cache: dict[Path, tuple[_Stamp, ModelCard]] = {}
        self._lock = threading.Lock()

    def get(self, version: int) -> ModelCard:
        """The card of a version, also of a withdrawn one. Raises `ModelCardMissing`."""
        for folder in (self._base_path, self._base_path / WITHDRAWN):
            path = folder / str(version) / CARD_PATH
            if path.is_file():
                return self._read(path, version)
        raise ModelCardMissing(
            f"model version {version} has no card at"
            f" {self._base_path / str(version) / CARD_PATH}; is the version published to the"
            " folder that serving.model_base_path names?"
        )

    def newest(self) -> ModelCard:
        """The card of the highest version on disk. Raises `ModelCardMissing`."""
        try:
            versions = [
                int(entry.name)
                for entry in self._base_path.iterdir()
                if entry.name.isascii() and entry.name.isdigit() and entry.is_dir()
            ]
        except OSError as error:
            raise ModelCardMissing(
                f"cannot read {self._base_path}: {error.strerror}; check serving.model_base_path"
            ) from error
        if not versions:
            raise ModelCardMissing(f"no model version is published under {self._base_path}")
        return self.get(max(versions))

    def _read(self, path: Path, version: int) -> ModelCard:
        try:
            status = path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            with self._lock:
                cached = self._cache.get(path)
            if cached is not None and cached[0] == stamp:
                return cached[1]
            if status.st_size > _MAXIMUM_BYTES:
                raise ModelCardMissing(
                    f"{path} has {status.st_size} bytes, at most {_MAXIMUM_BYTES} are read"
                )
            card = ModelCard.from_json(path.read_bytes())
        except OSError as error:
            raise ModelCardMissing(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise ModelCardMissing(f"{path} is not a model card: {error}") from error
        if card.model_version != version:
            raise ModelCardMissing(
                f"{path} is the card of version {card.model_version}, expected {version}"
            )
        with self._lock:
            self._cache[path] = (stamp, card)
        return card
