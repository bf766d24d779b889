"""What a container image would bring: this interpreter, its packages and this repository.

They are bound to places of their own (`/image/...`), read-only, because a pod's mounts may
cover the paths at which they lie on this machine.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from tests.conftest import ROOT

SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "sys")
ETC = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "localtime", "ssl", "alternatives")
"""Of /etc; the rest would tell of this machine."""
PYTHON = "/image/venv/bin/python"
PATH = "/image/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def binds() -> dict[str, Path]:
    """Path in the container -> path here."""
    found = {
        "/image/repository": ROOT,
        "/image/venv": Path(sys.prefix),
        sys.base_prefix: Path(sys.base_prefix),  # where the venv's interpreter points to
    }
    for name in SYSTEM:
        path = Path("/", name)
        if path.is_dir() and not path.is_symlink():
            found[str(path)] = path
    return {inside: outside for inside, outside in found.items() if not _covered(inside)}


def links() -> dict[str, str]:
    """Symbolic links at the top, such as /bin -> usr/bin."""
    paths = [Path("/", name) for name in SYSTEM]
    return {str(path): str(path.readlink()) for path in paths if path.is_symlink()}


def environment() -> dict[str, str]:
    """The ENV lines of the image."""
    return {"PATH": PATH, "PYTHONPATH": "/image/repository", "PYTHONDONTWRITEBYTECODE": "1"}


def write_programs(folder: Path) -> None:
    """The commands that the image has on its PATH, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("trainer", "dicomnode"):
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(PYTHON)} -m {name} "$@"\n')
        path.chmod(0o755)


def _covered(inside: str) -> bool:
    """Below /usr and the like it is there already."""
    return any(inside.startswith(f"/{name}/") for name in SYSTEM)
