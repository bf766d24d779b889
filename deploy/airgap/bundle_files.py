"""The bundle's folder: files put into it, their sums, and the list that is sealed.

A bundle is made beside its name and renamed when it is whole, so a folder with the name is
always a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from bundle_images import BundleError

_SAFE = re.compile(r"[A-Za-z0-9._+@][A-Za-z0-9._+@-]*(/[A-Za-z0-9._+@][A-Za-z0-9._+@-]*)*")
_CHUNK = 1 << 20


class Bundle:
    """A bundle in the making."""

    def __init__(self, target: Path) -> None:
        if target.exists():
            raise BundleError(f"{target} is there already; remove it, or give another name")
        self._target = target
        self._folder = target.with_name(target.name + ".partial")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self.sums: dict[str, str] = {}

    def add(self, source: Path, name: str) -> str:
        """Copy a file into the bundle; its SHA-256."""
        digest = hashlib.sha256()
        with source.open("rb") as stream, self._create(name).open("wb") as copy:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                copy.write(chunk)
        shutil.copymode(source, self._folder / name)
        self.sums[name] = digest.hexdigest()
        return self.sums[name]

    def write(self, name: str, text: str) -> None:
        """Put a text into the bundle."""
        self._create(name).write_text(text, encoding="utf-8")
        self.sums[name] = hashlib.sha256(text.encode()).hexdigest()

    def finish(self, description: dict[str, Any]) -> str:
        """Write MANIFEST.json and SHA256SUMS, give the folder its name; the seal."""
        self.write("MANIFEST.json", json.dumps(description, indent=2, sort_keys=True) + "\n")
        text = "".join(f"{self.sums[name]}  {name}\n" for name in sorted(self.sums))
        (self._folder / "SHA256SUMS").write_text(text, encoding="ascii")
        os.sync()  # the next thing that happens is that somebody pulls the stick
        self._folder.rename(self._target)
        return hashlib.sha256(text.encode()).hexdigest()

    def abandon(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _create(self, name: str) -> Path:
        if not _SAFE.fullmatch(name) or ".." in name.split("/"):
            raise BundleError(
                f"file name '{name}': a bundle's names have letters, digits and . _ + @ - only"
            )
        if name in self.sums:
            raise BundleError(f"two files want to be '{name}' in the bundle")
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def published_sums(path: Path) -> dict[str, str]:
    """A `sha256sum` list by file name."""
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{path} cannot be read ({error}); it is published with each release of k3s, beside "
            "the program"
        ) from error
    return {name: digest for digest, name in re.findall(r"^([0-9a-f]{64}) [ *](\S+)$", text, re.M)}


def sha256_of(path: Path) -> str:
    """A file's SHA-256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
