"""Which file system a path is on, as the kernel lists it (proc(5), mountinfo)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
NETWORK_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "9p", "glusterfs", "lustre", "afs", "sshfs"}
)


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One line of the list."""

    point: str
    kind: str
    options: frozenset[str]
    """Of the mount and of the file system."""

    @property
    def is_network(self) -> bool:
        name = self.kind.removeprefix("fuse.")
        return name in NETWORK_TYPES or name.startswith("glusterfs")


def mount_of(path: Path, *, mountinfo: str | None = None) -> Mount | None:
    """The mount that holds `path`: the last one of the longest mount point above it."""
    if mountinfo is None:
        if not MOUNTINFO.is_file():
            return None
        mountinfo = MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    place, best = path.resolve(), None
    for line in mountinfo.splitlines():
        mount = _parsed(line)
        if mount is None or not place.is_relative_to(mount.point):
            continue
        if best is None or len(mount.point) >= len(best.point):
            best = mount
    return best


def _parsed(line: str) -> Mount | None:
    before, separator, after = line.partition(" - ")
    fields, kind = before.split(" "), after.split(" ")
    if not separator or len(fields) < 6 or len(kind) < 3:
        return None
    options = frozenset(fields[5].split(",")) | frozenset(kind[2].split(","))
    return Mount(point=_unescaped(fields[4]), kind=kind[0], options=options)


def _unescaped(text: str) -> str:
    """The kernel writes space, tab, newline and backslash in octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
