"""Files copied so that their digest is known and they survive a power cut."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from dicomnode.storage.durable import sync_folder

CHUNK = 1024 * 1024
_PREAMBLE = 132
_GROUP_LENGTH_END = 144  # (0002,0000) UL follows the preamble and says how long the rest is
_META_OF_OURS = 4096
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)

Counted = Callable[[int], None]
"""Told how many bytes more were read."""


def copy_file(source: Path, place: Path, *, counted: Counted, mode: int) -> tuple[str, str]:
    """Copy to a place that is free, synced, with the time of the source.

    Returns the digest of the file and that of its data set: a received instance is known by
    the latter. The entry in the folder is synced by `sync_folders`.
    """
    whole = hashlib.sha256()
    with source.open("rb") as reader, place.open("xb") as writer:
        first = reader.read(CHUNK)
        offset = data_set_offset(first)
        data_set = hashlib.sha256(first[offset:]) if offset else whole
        for chunk in _chunks(first, reader.read):
            whole.update(chunk)
            if offset and chunk is not first:
                data_set.update(chunk)
            writer.write(chunk)
            counted(len(chunk))
        writer.flush()
        os.fchmod(writer.fileno(), mode)
        status = os.fstat(reader.fileno())
        os.utime(writer.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(writer.fileno())
    return whole.hexdigest(), data_set.hexdigest()


def _chunks(first: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
    chunk = first
    while chunk:
        yield chunk
        chunk = read(CHUNK)


def data_set_offset(head: bytes) -> int:
    """Where the data set begins (PS3.10 7.1); 0 for what is not a Part 10 file of ours."""
    if head[128:_PREAMBLE] != b"DICM" or head[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        return 0
    length = int.from_bytes(head[140:_GROUP_LENGTH_END], "little")
    return _GROUP_LENGTH_END + length if length <= _META_OF_OURS else 0


def file_digest(path: Path, *, counted: Counted) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            counted(len(chunk))
    return digest.hexdigest()


def link_file(existing: Path, place: Path) -> bool:
    """Give a file a second name; False where the file system has no such thing (FAT), or has
    no room for another name."""
    try:
        os.link(existing, place)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    return True


def sync_folders(root: Path) -> None:
    """Every folder below `root` and `root` itself."""
    for folder, _, _ in os.walk(root, topdown=False):
        sync_folder(Path(folder))
