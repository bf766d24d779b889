"""The documents say what the code does: every setting, metric, status, command and syntax."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client import CollectorRegistry
from pydicom.uid import UID

from dicomnode import reference
from dicomnode.cli.app import app as node_app
from dicomnode.config import load
from dicomnode.dimse.syntaxes import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from dicomnode.metrics import Metrics
from tests.conftest import ROOT
from trainer.cli.app import app as trainer_app

DOCS = ROOT / "docs"


def test_the_configuration_reference_is_that_of_the_settings_classes() -> None:
    """`make docs` writes it."""
    assert (ROOT / reference.REFERENCE).read_text() == reference.reference_markdown()
    assert (ROOT / reference.EXAMPLE).read_text() == reference.example_toml()


def test_the_example_file_with_every_key_uncommented_is_the_default(tmp_path: Path) -> None:
    text = (ROOT / reference.EXAMPLE).read_text()
    without_lists = re.sub(r"# \[\[.*?(?=\n\[|\Z)", "", text, flags=re.DOTALL)
    path = tmp_path / "node.toml"
    path.write_text(re.sub(r"^# (\w+ = )", r"\1", without_lists, flags=re.MULTILINE))
    (tmp_path / "empty.toml").write_text("")
    assert load(path, environment={}) == load(tmp_path / "empty.toml", environment={})


def test_the_settings_in_the_readme_are_valid(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "node.toml"
    path.write_text(block)
    assert load(path, environment={}).destinations[0].ae_title == "ORTHANC"


def commands(command: Any, name: str = "") -> list[str]:
    # typer may bring a click of its own: what has commands is a group, whatever its class
    if hasattr(command, "commands"):
        return [
            found
            for sub, child in command.commands.items()
            for found in commands(child, f"{name} {sub}".strip())
        ]
    return [name]


@pytest.mark.parametrize(("program", "app"), [("dicomnode", node_app), ("trainer", trainer_app)])
def test_every_command_is_in_the_readme(program: str, app: typer.Typer) -> None:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    row = "\n".join(row for row in rows if row.startswith(f"`{program} "))
    names = commands(typer.main.get_command(app))
    assert len(names) > 5
    told = {name for name in names if re.search(rf"`({program} )?{name}[ `]", row)}
    assert sorted(set(names) - told) == []


def test_every_metric_is_in_the_operations_manual() -> None:
    text = (DOCS / "operations.md").read_text()
    metrics = Metrics(CollectorRegistry())
    for family in metrics.registry.collect():
        assert family.name in text, family.name


@pytest.mark.parametrize("uid", [*STORAGE_SOP_CLASSES, *TRANSFER_SYNTAXES])
def test_every_sop_class_and_transfer_syntax_is_in_the_conformance_statement(uid: str) -> None:
    text = (DOCS / "conformance.md").read_text()
    assert re.search(rf"\| {re.escape(uid)} \|", text), UID(uid).name


def test_every_status_that_the_scp_gives_is_in_the_conformance_statement() -> None:
    source = (ROOT / "dicomnode" / "dimse" / "store.py").read_text()
    text = (DOCS / "conformance.md").read_text()
    from dicomnode.status import StorageStatus

    given = set(re.findall(r"StorageStatus\.([A-Z_]+)", source))
    assert given
    for name in given:
        assert f"0x{StorageStatus[name]:04X}" in text, name


def test_links_between_documents_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize(
    "message",
    [
        "is in use by another node",
        "the database has schema revision",
        "is damaged",
        "calling AE title not recognized",
        "called AE title not recognized",
        "local limit exceeded",
    ],
)
def test_a_message_that_the_manual_explains_is_one_that_the_program_says(message: str) -> None:
    assert message in (DOCS / "operations.md").read_text()
    code = "\n".join(path.read_text() for path in (ROOT / "dicomnode").rglob("*.py"))
    assert message in code
