"""The way from the thesis to the project leads to files, commands and objects that are there."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import typer
import yaml

from dicomnode.cli.app import app as node_app
from tests.conftest import ROOT
from trainer.cli.app import app as trainer_app

MAP = ROOT / "docs" / "thesis-map.md"
TEXT = MAP.read_text()
HEADING = ["in the thesis", "known", "here", "what was wrong, or is different, and why"]
QUOTED = [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", TEXT)]
KINDS = (
    "Namespace|StorageClass|PersistentVolumeClaim|PersistentVolume|Deployment|StatefulSet|CronJob|"
    "Job|Service|NetworkPolicy|ResourceQuota|LimitRange|Role|RuntimeClass|PodDisruptionBudget"
)


def rows() -> list[list[str]]:
    """Of every table, without headings."""
    lines = [line for line in TEXT.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row != HEADING and set(row[0]) != {"-"}]


def paths() -> list[str]:
    """What looks like a file or folder of this repository."""
    tops = "benchmarks|config|deploy|dicomnode|docker|docs|tests|trainer"
    return sorted({each for each in QUOTED if re.fullmatch(rf"({tops})/[\w./-]+", each)})


def objects_named() -> list[tuple[str, str]]:
    found = re.findall(rf"\b({KINDS})\s+`([\w-]+)`", TEXT)
    return sorted(set(found))


@functools.cache
def objects_there() -> set[tuple[str, str]]:
    """Kind and name of everything below deploy/."""
    found = set()
    for path in (ROOT / "deploy").rglob("*.yaml"):
        for made in yaml.safe_load_all(path.read_text()):
            if isinstance(made, dict) and "kind" in made:
                found.add((made["kind"], made.get("metadata", {}).get("name", "")))
    return found


def verbs(command: Any, name: str = "") -> set[str]:
    children = getattr(command, "commands", None)
    if children is None:
        return {name}
    return {
        verb for sub, child in children.items() for verb in verbs(child, f"{name} {sub}".strip())
    }


def quoted_after(program: str) -> list[str]:
    starts = [each for each in QUOTED if each.startswith(f"{program} ")]
    return [each.removeprefix(f"{program} ") for each in starts]


def test_every_row_has_its_counterpart_and_says_how_much_is_known() -> None:
    assert len(rows()) > 40
    for row in rows():
        assert len(row) == len(HEADING), row
        assert all(row), row
        assert row[1] in ("told", "listed"), row
        assert "`" in row[2], f"{row[0]} has no counterpart"


def test_of_what_is_only_listed_nothing_is_said_but_what_is_here() -> None:
    for thing, known, _, different in rows():
        if known == "listed":
            assert not re.search(r"thesis|original|wrong", different), thing


@pytest.mark.parametrize("path", paths())
def test_every_file_and_folder_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("kind_and_name", objects_named(), ids=" ".join)
def test_every_object_is_in_the_manifests(kind_and_name: tuple[str, str]) -> None:
    assert kind_and_name in objects_there()


@pytest.mark.parametrize(
    ("program", "app"), [("dicomnode", node_app), ("trainer", trainer_app)], ids=["node", "trainer"]
)
def test_every_command_is_one_of_the_program(program: str, app: typer.Typer) -> None:
    known = verbs(typer.main.get_command(app))
    told = quoted_after(program)
    assert len(told) > 3
    assert set(told) <= known


def test_every_verb_of_the_scripts_and_of_the_client_is_one_of_theirs() -> None:
    script = (ROOT / "deploy" / "node-setup" / "board.sh").read_text()
    (line,) = re.findall(r"^ +(apply \|[^)]*)\)", script, re.MULTILINE)
    assert quoted_after("board.sh")
    assert set(quoted_after("board.sh")) <= set(line.split(" | "))
    client = (ROOT / "docker" / "client" / "client.py").read_text()
    assert quoted_after("client")
    for verb in quoted_after("client"):
        assert f"    client {verb} " in client


def test_every_benchmark_and_target_is_there() -> None:
    modules = [each.removeprefix("-m ") for each in quoted_after("python")]
    assert modules
    for module in modules:
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert quoted_after("make")
    assert set(quoted_after("make")) <= set(targets)


def test_nothing_that_is_quoted_escapes_these_tests() -> None:
    """A command or a file in a form that no test above looks at would be believed unseen."""
    looked_at = re.compile(
        r"(dicomnode|trainer|client|board\.sh|python -m|make) .+|--[a-z-]+|[A-Z0-9_]+=\w+|[\w-]+"
        r"|manifest\.csv|nvcr\.io/nvidia/.+|kubectl port-forward"
    )
    unseen = [each for each in QUOTED if each not in paths() and not looked_at.fullmatch(each)]
    assert unseen == []


def test_the_known_faults_are_named() -> None:
    text = " ".join(TEXT.split())
    for fault in (
        "the two names were swapped",
        "By patient here",
        "as float64 in memory",
        "there was none",
        "id and address could disagree",
        "names the arm64 image",
        "not beside the annexes",
    ):
        assert fault in text, fault


def test_every_card_of_the_thesis_and_every_overlay_is_on_the_map() -> None:
    for path in (ROOT / "config" / "train").glob("thesis*.toml"):
        assert f"`config/train/{path.name}`" in TEXT
    for path in (ROOT / "deploy" / "overlays").iterdir():
        assert f"`deploy/overlays/{path.name}`" in TEXT
    for path in (ROOT / "deploy" / "node-setup" / "steps").glob("*.sh"):
        assert f"`deploy/node-setup/steps/{path.name}`" in TEXT
