"""Which images the manifests name, and whether an archive holds the image that is meant.

Reads archives and never unpacks them.
"""

from __future__ import annotations

import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LINE = re.compile(r"^\s*(?:-\s+)?\"?image\"?\s*[:=]\s*[\"']?([^\s\"',]+)", re.MULTILINE)
_PINNED = re.compile(r"^[A-Z0-9_]+=(\S+:\S+)@(sha256:[0-9a-f]{64})$", re.MULTILINE)
_NAME = re.compile(r"[a-z0-9][a-z0-9._/:-]*:[A-Za-z0-9_][A-Za-z0-9_.-]*")
_JSON_LIMIT = 4_000_000


class BundleError(Exception):
    """The bundle cannot be made; the text says what is wrong and what to do."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image as the manifests name it."""

    name: str
    digest: str
    """Of the multi-arch index as docker/images.env pins it; empty for our own images."""

    @property
    def full_name(self) -> str:
        """With the registry, as containerd keeps it: `postgres:17` is in `docker.io/library`."""
        host, slash, _ = self.name.partition("/")
        if slash and ("." in host or ":" in host or host == "localhost"):
            return self.name
        return f"docker.io/{self.name}" if slash else f"docker.io/library/{self.name}"

    @property
    def file_name(self) -> str:
        """The archive's name: one slot per image."""
        return re.sub(r"[^A-Za-z0-9._-]", "_", self.name) + ".tar"

    def how_to_get(self, architecture: str, target: Path) -> str:
        """The command that fills the slot, on a machine with internet."""
        if self.digest:
            repository = self.full_name.rpartition(":")[0]
            return (
                f"skopeo copy --override-arch {architecture} "
                f"docker://{repository}@{self.digest} docker-archive:{target}:{self.full_name}"
            )
        if self.name.startswith("dicomnode/"):
            return (
                f"build it for linux/{architecture} (docs/operations/images.md), then "
                f"docker save --platform linux/{architecture} -o {target} {self.name}"
            )
        return (
            f"skopeo copy --override-arch {architecture} docker://{self.full_name} "
            f"docker-archive:{target}:{self.full_name}   (no digest in docker/images.env: "
            "nothing says that this is the image that was meant)"
        )


def needed_images(manifests: list[str], pinned: str) -> list[Image]:
    """The images in rendered manifests (and in settings inside them), each once."""
    digests = dict(_PINNED.findall(pinned))
    names = sorted({name for text in manifests for name in _LINE.findall(text)})
    for name in names:
        if "@" in name:
            raise BundleError(
                f"image {name}: named by digest, and an image from a file has no digest name in "
                "containerd, so kubelet would try to pull it; name it by tag in the overlay "
                "(kustomize images: newTag), docker/images.env keeps the digest"
            )
        if not _NAME.fullmatch(name) or name.endswith(":latest"):
            raise BundleError(f"image {name}: expected NAME:TAG, and a tag other than latest")
    return [Image(name=name, digest=digests.get(name, "")) for name in names]


def check_archive(path: Path, image: Image, architecture: str) -> None:
    """Raise `BundleError` unless the archive holds this image for this architecture."""
    try:
        with tarfile.open(path, "r:") as archive:
            names, found = _described(archive, path)
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{path}: not an image archive that can be read ({error}); expected what docker save "
            "or skopeo copy docker-archive: writes, uncompressed"
        ) from error
    if image.full_name not in names:
        raise BundleError(
            f"{path}: holds {', '.join(sorted(names)) or 'an image without a name'}, "
            f"expected {image.full_name}"
        )
    if found != architecture:
        raise BundleError(
            f"{path}: {image.name} is for {found}, expected {architecture}; on the board it would "
            "end with 'exec format error'"
        )


def _described(archive: tarfile.TarFile, path: Path) -> tuple[set[str], str]:
    """The names that the archive gives its one image, and the architecture of its config."""
    members = set(archive.getnames())
    if "manifest.json" in members:
        entries = _json(archive, "manifest.json")
        if len(entries) != 1:
            raise BundleError(f"{path}: holds {len(entries)} images, expected one per file")
        names = {Image(name=tag, digest="").full_name for tag in entries[0].get("RepoTags") or ()}
        return names, str(_json(archive, entries[0]["Config"])["architecture"])
    manifests = _json(archive, "index.json")["manifests"]
    if len(manifests) != 1:
        raise BundleError(f"{path}: holds {len(manifests)} images, expected one per file")
    names = {
        Image(name=name, digest="").full_name
        for key, name in (manifests[0].get("annotations") or {}).items()
        if key == "io.containerd.image.name"
    }
    manifest = _json(archive, _blob(manifests[0]["digest"]))
    if "manifests" in manifest:
        raise BundleError(
            f"{path}: holds an index of several architectures, expected one; "
            "save it with --platform"
        )
    return names, str(_json(archive, _blob(manifest["config"]["digest"]))["architecture"])


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _json(archive: tarfile.TarFile, name: str) -> Any:
    member = archive.getmember(name)
    stream = archive.extractfile(member)
    if stream is None or member.size > _JSON_LIMIT:
        raise ValueError(f"{name} is not a JSON file of reasonable size")
    return json.loads(stream.read())
