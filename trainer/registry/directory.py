"""The versions of a model directory: published, withdrawn, promoted, rolled back.

Each change is one rename under one lock, so a model server and a reader see a version
whole or not at all.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomnode.modelcard import CARD_PATH, ModelCard
from trainer.errors import NothingToDo, RegistryError
from trainer.registry.locks import locked

WITHDRAWN: Final = "withdrawn"


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What it takes for `version` to be the one that serves."""

    version: int
    serving: int | None
    """The version that serves before; None when none is published."""
    returns: bool
    """`version` was withdrawn and comes back."""
    withdraws: tuple[int, ...]
    """The versions above it, ascending: a server loads the highest number."""


def versions(base: Path) -> tuple[int, ...]:
    """The numbers of the published versions, ascending; empty when `base` is missing."""
    return _numbers(base)


def withdrawn_versions(base: Path) -> tuple[int, ...]:
    """The numbers of the withdrawn versions, ascending."""
    return _numbers(base / WITHDRAWN)


def publish(folder: Path, base: Path) -> int:
    """Make `folder` the next version of `base`; returns its number.

    The card, when there is one, gets the number written into it; every file and folder is
    fsynced; then one rename makes the version visible, complete. Two publishers at once
    get two numbers. Raises `RegistryError` when `folder` holds no saved_model.pb or lies
    on another file system.
    """
    _prepare(folder)
    with locked(base):
        return _publish(folder, base)


def publish_after(folder: Path, base: Path, serving: int | None) -> int:
    """`publish`, but only while `serving` is the newest version (None: while there is none).

    For whoever compared `folder` with that version: another one may have been published,
    promoted or withdrawn meanwhile, and `folder` was never held against it. Raises
    `RegistryError` then.
    """
    _prepare(folder)
    with locked(base):
        newest = max(versions(base), default=None)
        if newest != serving:
            raise RegistryError(
                f"{base} served {_spoken(serving)} when the candidate was compared and "
                f"{_spoken(newest)} now; nothing was published; compare again"
            )
        return _publish(folder, base)


def withdraw(base: Path, version: int) -> Path:
    """Move `version` to ``withdrawn/``; returns where it is now.

    Raises `RegistryError` when it is not there or was withdrawn before under that number.
    """
    with locked(base):
        return _withdraw(base, version)


def rollback(base: Path) -> tuple[int, int]:
    """Withdraw the newest version; returns its number and the one that serves now.

    Raises `NothingToDo` when there is no older version to fall back to.
    """
    with locked(base):
        present = versions(base)
        if len(present) < 2:
            raise NothingToDo(
                f"{base} has {len(present)} version(s); a rollback needs an older one to serve"
            )
        _withdraw(base, present[-1])
    return present[-1], present[-2]


def plan_promotion(base: Path, version: int) -> Promotion:
    """What `promote` would do; changes nothing.

    Raises `NothingToDo` when `version` serves already, `RegistryError` when it is neither
    published nor withdrawn, or is damaged: no node could report what it answers.
    """
    present, withdrawn = versions(base), withdrawn_versions(base)
    if version not in present and version not in withdrawn:
        raise RegistryError(f"{base} has no version {version}; {_known(base)}")
    serving = max(present, default=None)
    if version == serving:
        raise NothingToDo(f"version {version} of {base} serves already")
    read_card(base, version)
    _require_graph(folder_of(base, version), "promoted")
    return Promotion(
        version=version,
        serving=serving,
        returns=version not in present,
        withdraws=tuple(number for number in present if number > version),
    )


def promote(base: Path, version: int) -> Promotion:
    """Make `version`, published or withdrawn, the one that serves; returns what was done.

    It comes back first and the version that served goes last, so a server that looks at
    any moment finds either the one or the other as the highest number, and one that stops
    half-way leaves the old one serving. The way back is to promote `Promotion.serving`.
    Raises like `plan_promotion`.
    """
    with locked(base):
        plan = plan_promotion(base, version)
        if plan.returns:
            _move(base / WITHDRAWN / str(version), base / str(version))
            _fsync(base / WITHDRAWN)
            _fsync(base)
        for number in plan.withdraws:
            _withdraw(base, number)
    return plan


def folder_of(base: Path, version: int) -> Path:
    """Where a published or withdrawn version is. Raises `RegistryError`."""
    for folder in (base / str(version), base / WITHDRAWN / str(version)):
        if folder.is_dir():
            return folder
    raise RegistryError(f"{base} has no version {version}; {_known(base)}")


def read_card(base: Path, version: int) -> ModelCard:
    """The card of a published or withdrawn version. Raises `RegistryError`."""
    folder = folder_of(base, version)
    try:
        return ModelCard.from_json((folder / CARD_PATH).read_bytes())
    except FileNotFoundError as error:
        raise RegistryError(f"{folder} has no {CARD_PATH}") from error
    except OSError as error:
        raise RegistryError(f"cannot read {folder / CARD_PATH}: {error.strerror}") from error
    except ValueError as error:
        raise RegistryError(f"{folder / CARD_PATH} is not a model card") from error


# -------------------------------------------------------------------------------- one step


def _prepare(folder: Path) -> None:
    _require_graph(folder, "published")
    _fsync_tree(folder)


def _require_graph(folder: Path, done: str) -> None:
    if not (folder / "saved_model.pb").is_file():
        raise RegistryError(f"{folder} holds no saved_model.pb; nothing was {done}")


def _publish(folder: Path, base: Path) -> int:
    number = max((0, *versions(base), *withdrawn_versions(base))) + 1
    while not _published_as(number, folder, base):
        number += 1
    return number


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
    try:
        card = ModelCard.from_json(path.read_bytes())
    except ValueError as error:
        raise RegistryError(f"{path} is not a model card; nothing was published") from error
    text = card.model_copy(update={"model_version": number}).to_json()
    path.write_text(text + "\n", encoding="utf-8")
    _fsync(path)


def _withdraw(base: Path, version: int) -> Path:
    source, target = base / str(version), base / WITHDRAWN / str(version)
    if not source.is_dir():
        raise RegistryError(f"{base} has no version {version} to withdraw; {_known(base)}")
    target.parent.mkdir(exist_ok=True)
    _move(source, target)
    _fsync(target.parent)
    _fsync(base)
    return target


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        raise RegistryError(f"cannot move {source} to {target}: {error.strerror}") from error


def _known(base: Path) -> str:
    published = ", ".join(map(str, versions(base))) or "none"
    withdrawn = ", ".join(map(str, withdrawn_versions(base)))
    return f"published: {published}" + (f"; withdrawn: {withdrawn}" if withdrawn else "")


def _spoken(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"


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
