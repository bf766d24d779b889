"""The model directory: numbered versions that appear and vanish in one step.

``BASE/1``, ``BASE/2`` ... are versions; a model server loads the highest. What is being
written stands in ``BASE/.staging-*``, which servers do not look at. A withdrawn version
moves to ``BASE/withdrawn/N`` and its number is not given out again: reports name it.
Files only, no tensorflow.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dicomnode.modelcard import CARD_PATH, ModelCard
from trainer.errors import NothingToDo, RegistryError

WITHDRAWN: Final = "withdrawn"
_LOCK: Final = ".lock"
_STAGING: Final = ".staging-"


def versions(base: Path) -> tuple[int, ...]:
    """The numbers of the published versions, ascending; empty when `base` is missing."""
    return _numbers(base)


def withdrawn_versions(base: Path) -> tuple[int, ...]:
    """The numbers of the withdrawn versions, ascending."""
    return _numbers(base / WITHDRAWN)


@contextmanager
def staging(base: Path) -> Iterator[Path]:
    """A fresh hidden folder on the file system of `base`, for `publish`.

    It is removed on the way out unless `publish` moved it.
    """
    base.mkdir(parents=True, exist_ok=True)
    folder = base / f"{_STAGING}{uuid.uuid4().hex}"
    folder.mkdir()
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(folder)


def publish(folder: Path, base: Path) -> int:
    """Make `folder` the next version of `base`; returns its number.

    The card, when there is one, gets the number written into it; every file and folder is
    fsynced; then one rename makes the version visible, complete. Two publishers at once
    get two numbers. Raises `RegistryError` when `folder` holds no saved_model.pb or lies
    on another file system.
    """
    if not (folder / "saved_model.pb").is_file():
        raise RegistryError(f"{folder} holds no saved_model.pb; nothing was published")
    _fsync_tree(folder)
    with _locked(base):
        number = max((0, *versions(base), *withdrawn_versions(base))) + 1
        while not _published_as(number, folder, base):
            number += 1
    return number


def withdraw(base: Path, version: int) -> Path:
    """Move `version` to ``withdrawn/``; returns where it is now.

    Raises `RegistryError` when it is not there or was withdrawn before under that number.
    """
    with _locked(base):
        return _withdraw(base, version)


def rollback(base: Path) -> tuple[int, int]:
    """Withdraw the newest version; returns its number and the one that serves now.

    Raises `NothingToDo` when there is no older version to fall back to.
    """
    with _locked(base):
        present = versions(base)
        if len(present) < 2:
            raise NothingToDo(
                f"{base} has {len(present)} version(s); a rollback needs an older one to serve"
            )
        _withdraw(base, present[-1])
    return present[-1], present[-2]


def read_card(base: Path, version: int) -> ModelCard:
    """The card of a published or withdrawn version. Raises `RegistryError`."""
    for folder in (base / str(version), base / WITHDRAWN / str(version)):
        if folder.is_dir():
            try:
                return ModelCard.from_json((folder / CARD_PATH).read_bytes())
            except FileNotFoundError as error:
                raise RegistryError(f"{folder} has no {CARD_PATH}") from error
            except ValueError as error:
                raise RegistryError(f"{folder / CARD_PATH} is not a model card") from error
    known = ", ".join(map(str, versions(base))) or "none"
    raise RegistryError(f"{base} has no version {version}; published: {known}")


# -------------------------------------------------------------------------------- one step


def _published_as(number: int, folder: Path, base: Path) -> bool:
    """Stamp and rename; False when somebody without our lock took the number."""
    if (base / str(number)).exists():
        return False
    _stamp(folder, number)
    try:
        folder.rename(base / str(number))
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        if error.errno == errno.EXDEV:
            raise RegistryError(
                f"{folder} and {base} are on different file systems; stage inside {base}"
            ) from error
        raise RegistryError(f"cannot publish to {base}: {error.strerror}") from error
    _fsync(base)
    return True


def _stamp(folder: Path, number: int) -> None:
    path = folder / CARD_PATH
    if not path.is_file():
        return
    card = ModelCard.from_json(path.read_bytes())
    text = card.model_copy(update={"model_version": number}).to_json()
    path.write_text(text + "\n", encoding="utf-8")
    _fsync(path)


def _withdraw(base: Path, version: int) -> Path:
    source, target = base / str(version), base / WITHDRAWN / str(version)
    if not source.is_dir():
        known = ", ".join(map(str, versions(base))) or "none"
        raise RegistryError(f"{base} has no version {version} to withdraw; published: {known}")
    target.parent.mkdir(exist_ok=True)
    try:
        source.rename(target)
    except OSError as error:
        raise RegistryError(f"cannot move {source} to {target}: {error.strerror}") from error
    _fsync(target.parent)
    _fsync(base)
    return target


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    """One publisher or withdrawer at a time; the lock ends with the process."""
    try:
        base.mkdir(parents=True, exist_ok=True)
        handle = os.open(base / _LOCK, os.O_RDWR | os.O_CREAT, 0o664)
    except OSError as error:
        raise RegistryError(f"cannot write to {base}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _numbers(folder: Path) -> tuple[int, ...]:
    if not folder.is_dir():
        return ()
    names = (entry.name for entry in folder.iterdir() if entry.is_dir())
    return tuple(sorted(int(name) for name in names if name.isascii() and name.isdigit()))


def _fsync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            _fsync(Path(parent) / name)
        _fsync(Path(parent))


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
