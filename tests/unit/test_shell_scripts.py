"""Shell scripts are POSIX, pass shellcheck, and are short enough to be read."""

from __future__ import annotations

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
