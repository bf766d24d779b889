"""Shell scripts are POSIX, pass shellcheck, and are short enough to be read."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, require_program

FOLDERS = [ROOT / "deploy" / "node-setup", ROOT / "deploy" / "airgap"]


def is_shell(path: Path) -> bool:
    return path.suffix == ".sh" or path.read_text(errors="replace").startswith("#!/bin/sh")


SCRIPTS = [
    path
    for folder in FOLDERS
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.suffix != ".pyc" and is_shell(path)
]
NAMES = [str(path.relative_to(ROOT)) for path in SCRIPTS]
PROGRAMS = [path for path in SCRIPTS if path.parent.name != "lib"]


@pytest.mark.peer("shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    shellcheck = require_program("shellcheck")
    done = subprocess.run(
        [shellcheck, "--external-sources", "--source-path=SCRIPTDIR", "--shell=sh", *PROGRAMS],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_a_script_is_understood_by_a_plain_posix_shell(script: Path) -> None:
    """An old board's /bin/sh is dash or busybox."""
    shell = require_program("dash")
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("script", PROGRAMS, ids=[str(p.relative_to(ROOT)) for p in PROGRAMS])
def test_a_script_stops_at_the_first_error_and_may_be_executed(script: Path) -> None:
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/sh"
    assert "set -eu" in lines
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_a_script_is_short_and_runs_nothing_from_the_net(script: Path) -> None:
    text = script.read_text()
    assert len(text.splitlines()) < 300
    for word in ("curl ", "wget ", "get.k3s.io", "eval ", "chmod 777", "sleep infinity"):
        assert word not in text, word


def settings(text: str) -> dict[str, str]:
    found = re.findall(r"^([A-Z0-9_]+)=(.*)$", text, re.MULTILINE)
    return {key: value.strip('"') for key, value in found}


def test_the_example_names_every_setting_of_a_board_with_its_default() -> None:
    setup = ROOT / "deploy" / "node-setup"
    declared = settings((setup / "lib" / "settings.sh").read_text())
    known = declared.pop("SETTINGS", None) or ""
    listed = re.search(r'^SETTINGS="([^"]*)"', (setup / "lib/settings.sh").read_text(), re.M)
    assert listed is not None, known
    assert set(declared) == set(listed[1].split())
    assert settings((setup / "board.env.example").read_text()) == declared


@pytest.mark.parametrize(
    ("script", "manual"),
    [
        ("deploy/node-setup/board.sh", "bare-boards.md"),
        ("deploy/airgap/install.sh", "air-gap.md"),
        ("deploy/airgap/verify.sh", "air-gap.md"),
        ("deploy/airgap/make_bundle.py", "air-gap.md"),
    ],
)
def test_every_option_is_in_the_manual(script: str, manual: str) -> None:
    text = (ROOT / "docs" / "operations" / manual).read_text()
    options = set(re.findall(r"(?<=[\s\"|(])--[a-z][a-z0-9-]+(?=[\")| ])", options_of(script)))
    assert options
    assert {option for option in options if option not in text} - {"--help"} == set()


def options_of(script: str) -> str:
    lines = (ROOT / script).read_text().splitlines()
    return "\n".join(line for line in lines if re.match(r'\s*(add\(")?-.*[)"]', line))


def test_every_verb_and_step_is_in_the_manual() -> None:
    boards = (ROOT / "docs" / "operations" / "bare-boards.md").read_text()
    program = (ROOT / "deploy" / "node-setup" / "board.sh").read_text()
    for verb in ("apply", "check", "status", "stop", "start", "remove", "reinstall"):
        assert re.search(rf"^    {verb}\)", program, re.MULTILINE), verb
        assert f"`board.sh {verb}`" in boards, verb
    (steps,) = re.findall(r'^STEPS="([^"]*)"', program, re.MULTILINE)
    for step in steps.split():
        assert f"`{step}`" in boards, step
    gap = (ROOT / "docs" / "operations" / "air-gap.md").read_text()
    for step in re.findall(
        r"^step_(\w+)\(\)", (ROOT / "deploy/airgap/install.sh").read_text(), re.M
    ):
        assert f"| `{step}` |" in gap, step
