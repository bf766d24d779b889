"""Part 10 files and documents under one root.

::

    root/incoming/                                   temporary files, emptied at start
         instances/<study>/<series>/<sop>.<digest16>.dcm
         conflicts/<study>/<series>/<sop>.<digest16>.dcm
         documents/<study>/...   display/<study>/...     whatever the node makes itself

A name holds the digest, and where that is not enough the content is compared: nothing
that was acknowledged is ever overwritten. Temporary files share the file system with
their place, so a rename is atomic.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
import shutil
import uuid
from pathlib import Path

from pydicom.dataset import Dataset

from dicomnode.errors import NotAnInstance, NotInStore, StorageFull, StorageUnavailable
from dicomnode.ports import ReceivedInstance
from dicomnode.storage.durable import DurableFolders, mapped_errors, parent, sync_file, sync_folder
from dicomnode.storage.header import read_header

FOLDERS = ("incoming", "instances", "conflicts", "documents", "display")
RECEIVED = ("incoming", "instances", "conflicts")
"""Folders that `write_document` never touches."""

_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class PartTenFiles:
    """`ports.Files` on a POSIX file system; safe for many threads."""

    def __init__(self, root: Path, minimum_free_bytes: int) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self._minimum_free_bytes = minimum_free_bytes
        with mapped_errors("making the store's folders"):
            root.mkdir(parents=True, exist_ok=True)
            self._real_root = root.resolve()
            self._folders = DurableFolders(str(root))
            for name in FOLDERS:
                self._folders.sync(self._folders.make(f"{root}/{name}"))

    def keep(self, received: ReceivedInstance) -> str:
        """Put a received file in its place; durable when this returns.

        Raises `StorageFull` when the disk is full or would fall below
        `minimum_free_bytes`, `NotAnInstance` for a UID that cannot be a path.
        """
        study = _uid(received.study_instance_uid, "Study Instance UID")
        series = _uid(received.series_instance_uid, "Series Instance UID")
        sop = _uid(received.sop_instance_uid, "SOP Instance UID")
        if not _DIGEST.fullmatch(received.digest):
            raise ValueError("a digest is 64 hexadecimal digits (SHA-256)")
        self._require_room()
        with mapped_errors("storing a received instance"):
            sync_file(received.path)
            # mostly text: joining paths costs as much as all else here but the disk
            name = f"instances/{study}/{series}/{sop}"
            kept = f"{name}.{received.digest[:16]}.dcm"
            place = Path(f"{self.root}/{kept}")
            if place.exists() and not filecmp.cmp(place, received.path, shallow=False):
                kept = f"{name}.{received.digest}.dcm"
            self._move(received.path, f"{self.root}/{kept}")
        return kept

    def set_aside(self, path: str) -> str:
        """Move what `keep` kept to `conflicts/`; durable when this returns."""
        aside = Path("conflicts", *Path(path).parts[1:])
        with mapped_errors("setting a conflicting instance aside"):
            try:
                self._move(self.absolute(path), f"{self.root}/{aside}")
            except FileNotFoundError:
                if not (self.root / aside).exists():  # else: the same one over another association
                    raise
            sync_folder(self.absolute(path).parent)
        return str(aside)

    def discard(self, path: Path) -> None:
        """Remove a temporary file; one that is gone already is no error."""
        with mapped_errors("removing a temporary file"):
            path.unlink(missing_ok=True)

    def write_document(self, relative: str, data: bytes) -> None:
        """Write `data` to `root/relative`, atomically and durably, replacing what was there.

        Raises `StorageFull`, `StorageUnavailable`, and `NotInStore` for a path that leaves
        the root or is in a folder of received files.
        """
        place = self.absolute(relative)
        first = Path(relative).parts[0] if Path(relative).parts else ""
        if first in RECEIVED or len(Path(relative).parts) < 2:
            raise NotInStore(f"documents are not written to {relative!r}; use documents/<study>/")
        temporary = self.incoming / f"{uuid.uuid4().hex}.document"
        try:
            with mapped_errors(f"writing {relative}"):
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                self._move(temporary, str(place))
        finally:
            with contextlib.suppress(OSError):  # the sweep at the next start removes it
                temporary.unlink(missing_ok=True)

    def absolute(self, relative: str) -> Path:
        """The path of a stored thing. Raises `NotInStore` when it would leave the root,
        by `..`, by being absolute, or through a symbolic link."""
        path = self.root / relative
        inside = not Path(relative).is_absolute() and ".." not in Path(relative).parts
        if not inside or "\0" in relative or not self._is_below_root(path):
            raise NotInStore("the path leaves the store's root; expected one that is below it")
        return path

    def read_header(self, relative: str) -> Dataset:
        """See `storage.header.read_header`."""
        return read_header(self.absolute(relative))

    def free_bytes(self) -> int:
        with mapped_errors("asking for free space"):
            return shutil.disk_usage(self.root).free

    def has_room(self) -> bool:
        """Whether another instance may be received."""
        return self.free_bytes() >= self._minimum_free_bytes

    def trouble(self) -> str | None:
        """Why nothing can be stored now, after writing a probe durably; None when all is
        well (for /readyz)."""
        probe = self.incoming / f"{uuid.uuid4().hex}.probe"
        try:
            self._require_room()
            with mapped_errors("writing a probe to the store"):
                probe.write_bytes(b"probe")
                sync_file(probe)
                probe.unlink()
        except (StorageFull, StorageUnavailable) as error:
            return str(error)
        return None

    def writable(self) -> bool:
        return self.trouble() is None

    def _require_room(self) -> None:
        free = self.free_bytes()
        if free < self._minimum_free_bytes:
            raise StorageFull(
                f"{free} bytes free under {self.root}, fewer than storage.minimum_free_bytes "
                f"({self._minimum_free_bytes}); free space, the sender will retry"
            )

    def _move(self, temporary: Path, place: str) -> None:
        folder = parent(place)
        made = self._folders.make(folder)
        try:
            temporary.replace(place)
        except FileNotFoundError:
            self._folders.forget(folder)  # removed meanwhile, by retention or by hand
            made = self._folders.make(folder)
            temporary.replace(place)
        sync_folder(folder)
        self._folders.sync(made)

    def _is_below_root(self, path: Path) -> bool:
        with mapped_errors("resolving a path"):
            return path.resolve().is_relative_to(self._real_root)


def _uid(value: str, name: str) -> str:
    """Defence in depth: UIDs were parsed at the edge (PS3.5 9.1), a path depends on them here."""
    if len(value) > 64 or not _UID.fullmatch(value):
        raise NotAnInstance(f"{name} is not a UID (PS3.5 9.1); it cannot name a file")
    return value
