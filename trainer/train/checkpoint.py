"""Where a run stands after an epoch, kept in a file so that it can continue.

One file per run, named by its identity: a hash of everything that decides its result. It is
written under another name, fsynced and renamed, so it is whole or not there; zip's CRC-32 of
every array tells a damaged one, which is then thrown away.
"""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Arrays = Sequence[NDArray[Any]]

_SUFFIX: Final = ".npz"
_KEPT_SECONDS: Final = 7 * 86_400.0


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch came to; losses are means over the films."""

    number: int
    loss: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True, kw_only=True)
class State:
    """After an epoch: the weights, the best ones so far, and what the optimizer remembers."""

    weights: Arrays
    best: Arrays
    optimizer: Arrays
    history: tuple[Epoch, ...]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The checkpoint of one run."""

    folder: Path
    identity: str
    """Hex: of everything that decides the result of the run."""

    @property
    def path(self) -> Path:
        return self.folder / f"{self.identity}{_SUFFIX}"

    def load(self) -> State | None:
        """Where the run stood, or None when there is no (undamaged) checkpoint of it."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            history = json.loads(arrays.pop("history").tobytes())
            return State(
                **{part: _part(arrays, part) for part in ("weights", "best", "optimizer")},
                history=tuple(Epoch(**epoch) for epoch in history),
            )
        except FileNotFoundError:
            return None
        except (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError):
            self.path.unlink(missing_ok=True)
            return None

    def save(self, state: State) -> None:
        """Raises OSError when it cannot be written; the one before it then stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        history = json.dumps([asdict(epoch) for epoch in state.history]).encode()
        arrays = {"history": np.frombuffer(history, dtype=np.uint8)}
        for part in ("weights", "best", "optimizer"):
            values: Arrays = getattr(state, part)
            arrays |= {f"{part}.{number:05}": value for number, value in enumerate(values)}
        scratch = self.folder / f".{self.identity}.{os.getpid()}{_SUFFIX}"
        try:
            with scratch.open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]
                stream.flush()
                os.fsync(stream.fileno())
            scratch.replace(self.path)
        finally:
            scratch.unlink(missing_ok=True)

    def remove(self) -> None:
        """The run is done; those of others are removed when nobody came back in a week."""
        self.path.unlink(missing_ok=True)
        for path in self.others():
            if path.stat().st_mtime < time.time() - _KEPT_SECONDS:
                path.unlink(missing_ok=True)

    def others(self) -> list[Path]:
        """Checkpoints of other runs: another configuration, or other films."""
        return [path for path in self.folder.glob(f"*{_SUFFIX}") if path != self.path]


def _part(arrays: dict[str, NDArray[Any]], part: str) -> list[NDArray[Any]]:
    return [arrays[name] for name in sorted(arrays) if name.startswith(f"{part}.")]
