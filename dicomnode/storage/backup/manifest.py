"""What a backup says of itself, and the list of its digests.

`SHA256SUMS` has a line per file in the order of their paths' bytes, so that two lists are
compared by reading both once: a store of a million images needs no memory for it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from dicomnode.errors import PermanentError, StorageUnavailable
from dicomnode.storage.durable import mapped_errors

MANIFEST_NAME = "manifest.json"
SUMS_NAME = "SHA256SUMS"
CONFIG_NAME = "node.toml"
STORE = "store"
MODELS = "models"
FORMAT = 1

PARTIAL = ".partial-"
"""Begins the name of a backup that is being written, or whose writer died."""

_LINE = re.compile(r"([0-9a-f]{64})  ([^\n\\]+)\n")
_SHOWN = 5


class BackupRefused(PermanentError):
    """What was asked would lose or mix something; nothing was changed."""

    code = "backup_refused"


class BackupDamaged(PermanentError):
    """A backup is not what its manifest says, or a store not what its index says."""

    code = "backup_damaged"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`manifest.json`. Holds no patient data."""

    format: int
    created_at: str
    """When the database was copied: everything acknowledged before is in the backup."""
    version: str
    """Of the program that wrote it."""
    schema_revision: str
    store_id: str
    starts: int
    database_kind: str
    """What the node used; the backup's own copy is SQLite."""
    files: int
    bytes: int
    studies: int
    instances: int
    models: tuple[str, ...]
    """Relative folders of model versions; empty when they were left out."""
    sums_sha256: str
    """Of `SHA256SUMS`."""
    missing: tuple[str, ...] = ()
    """Files that the database names and the store no longer had."""
    altered: tuple[str, ...] = ()
    """Received files whose bytes were not what the index says; kept as they are."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def read_manifest(backup: Path) -> Manifest:
    """Raises `BackupDamaged` when there is none that this program understands."""
    path = backup / MANIFEST_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BackupDamaged(
            f"{backup} has no {MANIFEST_NAME}: it is not a backup, or one that was not finished"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BackupDamaged(f"cannot read {path} ({type(error).__name__})") from error
    try:
        tree = json.loads(text)
        known = {field.name for field in fields(Manifest)}
        lists = {name: tuple(tree.get(name, ())) for name in ("models", "missing", "altered")}
        manifest = Manifest(**{k: v for k, v in tree.items() if k in known} | lists)
    except (ValueError, TypeError, AttributeError) as error:
        raise BackupDamaged(f"{path} is damaged; use an older backup") from error
    if manifest.format != FORMAT:
        raise BackupDamaged(
            f"{path} has format {manifest.format!r}, this program reads {FORMAT}; "
            "restore with the version that wrote it"
        )
    return manifest


def complete_backups(target: Path) -> list[Path]:
    """The finished backups below `target`, oldest first."""
    if not target.is_dir():
        return []
    return sorted(
        folder
        for folder in target.iterdir()
        if not folder.name.startswith(".") and (folder / MANIFEST_NAME).is_file()
    )


def last_sound_list(target: Path) -> Path | None:
    """The newest backup below `target` whose list is the one that its manifest vouches for:
    one that is damaged must not keep the next one from being taken."""
    for folder in reversed(complete_backups(target)):
        try:
            if sums_digest(folder) == read_manifest(folder).sums_sha256:
                return folder
        except (BackupDamaged, StorageUnavailable):
            continue
    return None


def find_backup(source: Path) -> Path:
    """`source` itself when it is a backup, else the newest one below it.

    Raises `BackupRefused`.
    """
    if (source / MANIFEST_NAME).is_file():
        return source
    found = complete_backups(source)
    if not found:
        raise BackupRefused(
            f"no finished backup at {source}: expected {MANIFEST_NAME} in it, or in a folder below"
        )
    return found[-1]


def read_sums(backup: Path) -> Iterator[tuple[str, str]]:
    """Path and digest of each file, in order. Raises `BackupDamaged`."""
    with (
        mapped_errors(f"reading {SUMS_NAME}"),
        (backup / SUMS_NAME).open(encoding="utf-8", errors="surrogateescape") as stream,
    ):
        for number, line in enumerate(stream, start=1):
            found = _LINE.fullmatch(line)
            if found is None or not is_inside(found[2]):
                raise BackupDamaged(f"{backup / SUMS_NAME} line {number} is not a digest and path")
            yield found[2], found[1]


def files_of(backup: Path, part: str) -> Iterator[tuple[str, str]]:
    """Path below the folder `part` and digest of each file there, in order."""
    for path, digest in read_sums(backup):
        if path.startswith(f"{part}/"):
            yield path.removeprefix(f"{part}/"), digest


def sums_digest(backup: Path) -> str:
    with mapped_errors(f"reading {SUMS_NAME}"), (backup / SUMS_NAME).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_inside(path: str) -> bool:
    """Whether a path of a list stays in its folder; a list may come from anywhere."""
    return not path.startswith("/") and not {"", ".", ".."} & set(path.split("/"))


class PreviousSums:
    """Digests of an earlier backup, asked for in ascending order of the paths."""

    def __init__(self, backup: Path | None) -> None:
        self._lines = iter(()) if backup is None else read_sums(backup)
        self._next = next(self._lines, None)

    def digest(self, path: str) -> str | None:
        wanted = in_order(path)
        while self._next is not None and in_order(self._next[0]) < wanted:
            self._next = next(self._lines, None)
        if self._next is not None and self._next[0] == path:
            return self._next[1]
        return None


def in_order(path: str) -> bytes:
    """The order of the list: that of SQLite's BINARY collation, too."""
    return path.encode("utf-8", "surrogateescape")


def some_of(paths: tuple[str, ...] | list[str]) -> str:
    """A few of them and how many more, for a message."""
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
