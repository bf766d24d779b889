"""What an operator does before `kubectl apply`: an overlay of one's own, rendered by kubectl.

The kustomization on top of the shipped overlay replaces `site.yaml` and `node.toml`, as
docs/operations/kubernetes.md says; nothing else is changed.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.supported import Object
from tests.peers.manifests import DEPLOY, kustomize
from trainer.submit import toml


def rendered(overlay: str, folder: Path, *, modality: str, pacs: str) -> list[Object]:
    """The objects of a copy of the overlay in `folder`.

    `modality` is the address that images come from, and the only one that the node believes;
    `pacs` is the one that reports go to.
    """
    source = DEPLOY / "overlays" / overlay
    shutil.copytree(source, folder)
    _fill_in_site(folder / "site.yaml", modality, pacs)
    _fill_in_node(folder / "node.toml", modality, pacs)
    path = folder / "kustomization.yaml"
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    here = folder.resolve()
    for key in ("resources", "components"):
        document[key] = [
            os.path.relpath(source / each, here) if each.startswith("..") else each
            for each in document[key]
        ]
    path.write_text(yaml.safe_dump(document))
    return kustomize(here)


def _fill_in_site(path: Path, modality: str, pacs: str) -> None:
    document = yaml.safe_load(path.read_text())
    spec = document["spec"]
    spec["modalities"] = [{"ipBlock": {"cidr": f"{modality}/32"}}]
    spec["destinations"]["addresses"] = [{"ipBlock": {"cidr": f"{pacs}/32"}}]
    path.write_text(yaml.safe_dump(document))


def _fill_in_node(path: Path, modality: str, pacs: str) -> None:
    tables = tomllib.loads(path.read_text())
    for peer in tables["dimse"]["peers"]:
        peer["host"] = modality
    for destination in tables["destinations"]:
        destination["host"] = pacs
    path.write_text(toml.dumps(tables))
