"""`trainer submit` without a cluster: rendering, and what is wrong said in a line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from trainer.cli import main

EXAMPLE = ROOT / "config" / "submit.example.toml"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["submit", *arguments])
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def _no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def test_render_prints_the_objects_and_asks_no_cluster(capsys):
    assert run("--config", str(EXAMPLE), "--render", "--name", "mine") == 0
    found = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [each["kind"] for each in found] == ["Service", "ConfigMap", "Job"]
    assert {each["metadata"]["name"] for each in found} == {"mine"}


def test_render_without_a_name_is_the_same_every_time(capsys):
    assert run("--config", str(EXAMPLE), "--render") == 0
    first = capsys.readouterr().out
    assert run("--config", str(EXAMPLE), "--render") == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config", "none.toml"), "none.toml cannot be read"),
        (("--config", str(EXAMPLE), "--name", "A b"), "--name must start with a letter"),
        (("--config", str(EXAMPLE)), "no way into the cluster"),
        (("--config", str(EXAMPLE), "--timeout", "0"), "--timeout"),
        ((), "--config"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(arguments, message: str, capsys):
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_rendering_needs_neither_the_client_nor_tensorflow():
    program = (
        "import sys\n"
        "from trainer.cli import main\n"
        "try:\n"
        f"    main(['submit', '--config', {str(EXAMPLE)!r}, '--render'])\n"
        "except SystemExit as ended:\n"
        "    assert not ended.code\n"
        "sys.exit(any(name in sys.modules for name in ('kubernetes', 'tensorflow')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.DEVNULL, timeout=60, check=False
    )
    assert done.returncode == 0
