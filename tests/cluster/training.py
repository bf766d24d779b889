"""A retraining as an operator starts it: the overlay's submit.toml through `trainer submit`."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT
from trainer.submit import Manifests, toml


def submitted(shipped: Path, changes: dict[str, dict[str, Any]], name: str) -> Manifests:
    """What `trainer submit --render` prints for the shipped file with these keys changed."""
    tables = tomllib.loads(shipped.read_text())
    for table, values in changes.items():
        tables.setdefault(table, {}).update(values)
    changed = shipped.with_name(f"{name}.toml")
    changed.write_text(toml.dumps(tables))
    command = [sys.executable, "-m", "trainer", "submit", f"--config={changed}", "--render"]
    done = subprocess.run(
        [*command, f"--name={name}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    objects = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    return Manifests(
        service=objects["Service"], config_map=objects["ConfigMap"], job=objects["Job"]
    )
