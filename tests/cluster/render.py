"""What an operator does before `kubectl apply`: an overlay of one's own, rendered by kubectl.

The kustomization on top of the shipped overlay replaces `site.yaml` and `node.toml`, as
docs/operations/kubernetes.md says; nothing else is changed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.supported import Object
from tests.peers.manifests import DEPLOY, _kustomize


def rendered(
    overlay: str, folder: Path, *, site: Object | None = None, node_toml: str | None = None
) -> list[Object]:
    """The objects of a copy of the overlay in `folder`, with the site's own two files."""
    source = DEPLOY / "overlays" / overlay
    shutil.copytree(source, folder)
    if site is not None:
        (folder / "site.yaml").write_text(yaml.safe_dump(_changed(folder / "site.yaml", site)))
    if node_toml is not None:
        (folder / "node.toml").write_text(node_toml)
    path = folder / "kustomization.yaml"
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    here = folder.resolve()
    for key in ("resources", "components"):
        document[key] = [
            os.path.relpath(source / each, here) if each.startswith("..") else each
            for each in document[key]
        ]
    path.write_text(yaml.safe_dump(document))
    return _kustomize(here)


def _changed(path: Path, spec: Object) -> Object:
    document: Object = yaml.safe_load(path.read_text())
    document["spec"].update(spec)
    return document
