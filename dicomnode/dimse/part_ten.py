"""A Part 10 file that grows as a data set arrives (PS3.10 7.1)."""

from __future__ import annotations

import hashlib
import os
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path

from dicomnode.dimse.elements import ElementWalk
from dicomnode.dimse.implementation import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
)
from dicomnode.dimse.uid import parse_uid
from dicomnode.errors import NotAnInstance

_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<HH2sxxI")
_PIECE_BYTES = 256 * 1024


def encode_file_meta(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    calling_ae_title: str,
) -> bytes:
    """Preamble, prefix and file meta information, Explicit VR Little Endian."""
    elements = [
        _LONG.pack(2, 0x0001, b"OB", 2) + b"\x00\x01",
        _short(0x0002, b"UI", sop_class_uid),
        _short(0x0003, b"UI", sop_instance_uid),
        _short(0x0010, b"UI", transfer_syntax_uid),
        _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
        _short(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
        _short(0x0016, b"AE", calling_ae_title),
    ]
    body = b"".join(elements)
    return bytes(128) + b"DICM" + _SHORT.pack(2, 0, b"UL", 4) + struct.pack("<I", len(body)) + body


def _short(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii")
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return _SHORT.pack(2, element, vr, len(value)) + value


@dataclass(frozen=True, kw_only=True)
class FileMeta:
    """What a Part 10 file says of itself, and where its data set begins."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_offset: int


def read_file_meta(path: Path) -> FileMeta:
    """The file meta information of `path`. Raises `NotAnInstance`, or `OSError`."""
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            raise NotAnInstance(
                f"{path.name} is not a DICOM file: no DICM prefix at byte 128 (PS3.10 7.1)"
            )

        def read_at(offset: int, count: int) -> bytes:
            return os.pread(file.fileno(), count, offset)

        found, offset = _walk_file_meta(
            ElementWalk(read_at, is_implicit=False, order="<", start=132)
        )
    return FileMeta(
        sop_class_uid=parse_uid(
            found.get(0x0002, b""), what="(0002,0002) Media Storage SOP Class UID"
        ),
        sop_instance_uid=parse_uid(
            found.get(0x0003, b""), what="(0002,0003) Media Storage SOP Instance UID"
        ),
        transfer_syntax_uid=parse_uid(
            found.get(0x0010, b""), what="(0002,0010) Transfer Syntax UID"
        ),
        data_set_offset=offset,
    )


def _walk_file_meta(walk: ElementWalk) -> tuple[dict[int, bytes], int]:
    """Values of group 0002 and the position behind it: where (0002,0000) says, or, when it
    is missing or 0, before the first element of another group."""
    found: dict[int, bytes] = {}
    end: int | None = None
    while True:
        start = walk.position
        if end is not None and start >= end:
            return found, start
        element = walk.next_element()
        if element is None or element.tag >> 16 != 0x0002:
            return found, start
        number = element.tag & 0xFFFF
        if number in (0x0000, 0x0002, 0x0003, 0x0010):
            found[number] = walk.value(element)
        else:
            walk.skip(element)
        if number == 0 and (length := int.from_bytes(found[0], "little")):
            end = walk.position + length


class PartTenFile:
    """A new file in `folder`: `file_meta`, then the data set's bytes as they come.

    They are gathered, and written and hashed in pieces of one size: senders cut them into 16 KiB
    or less, and around each call the thread gives up the interpreter to another
    association's. After `complete` everything is in the file. `size` counts the whole file;
    `digest()` is the SHA-256 (hex) of the data set alone. Every method raises `OSError` as
    the system does.
    """

    def __init__(self, folder: Path, file_meta: bytes) -> None:
        self.path = folder / f"{uuid.uuid4().hex}.part"
        self._fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o640)
        self._data_set_start = len(file_meta)
        self._hash = hashlib.sha256()
        self._gathered = memoryview(bytearray(_PIECE_BYTES))
        self._gathered[: len(file_meta)] = file_meta
        self._hashed = self._data_set_start
        """What is gathered is hashed from here; the file meta information is not."""
        self._filled = self.size = len(file_meta)
        self._written = 0

    def write(self, data: memoryview) -> None:
        self.size += len(data)
        while data:
            taken = min(len(data), _PIECE_BYTES - self._filled)
            self._gathered[self._filled : self._filled + taken] = data[:taken]
            self._filled += taken
            data = data[taken:]
            if self._filled == _PIECE_BYTES:
                self._write_out()
                self._start_write_back()

    def complete(self) -> None:
        """No more bytes come: what is gathered goes to the file."""
        self._write_out()

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes of the data set, once it is complete."""
        return os.pread(self._fd, count, self._data_set_start + offset)

    def digest(self) -> str:
        return self._hash.hexdigest()

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def discard(self) -> None:
        """Close and remove; no error when it is gone."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _write_out(self) -> None:
        piece = self._gathered[: self._filled]
        while piece:
            piece = piece[os.write(self._fd, piece) :]
        self._written += self._filled
        self._hash.update(self._gathered[self._hashed : self._filled])
        self._hashed = self._filled = 0

    def _start_write_back(self) -> None:
        """Let the disk begin while the rest arrives, so that the fsync before the answer finds
        little left to do. On Linux this advice starts writing dirty pages and waits for
        nothing; they are not dropped, for they are not clean yet."""
        start = self._written - _PIECE_BYTES
        os.posix_fadvise(self._fd, start, _PIECE_BYTES, os.POSIX_FADV_DONTNEED)
