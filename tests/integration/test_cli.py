"""Exit codes and messages of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.cli import main
from tests.acceptance.node import free_ports


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return int(ended.value.code or 0), captured.out + captured.err


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "node.toml"
    path.write_text("")
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--version"], 0, "dicomnode "),
        (["--help"], 0, "Investigational"),
        (["echo"], 2, "Missing argument"),
        (["nonsense"], 2, "No such command"),
        (["serve", "--nonsense"], 2, "No such option"),
        (["echo", "nowhere"], 2, "HOST:PORT"),
        (["serve", "--config", "/nonexistent.toml"], 2, "cannot read /nonexistent.toml"),
    ],
)
def test_a_wrong_call_is_told_in_a_few_lines(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, told: str
) -> None:
    found, text = run(capsys, *arguments)
    assert found == code
    assert told in text


def test_wrong_settings_end_with_2_and_name_every_key(
    capsys: pytest.CaptureFixture[str], config: str
) -> None:
    Path(config).write_text("[dimse]\nport = 0\nprot = 1\n")
    code, text = run(capsys, "check-config", "--config", config)
    assert code == 2
    assert "dimse.port" in text
    assert "dimse.prot is not a setting; did you mean dimse.port?" in text


def test_a_peer_that_is_away_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    code, text = run(capsys, "echo", f"127.0.0.1:{port}")
    assert code == 1
    assert str(port) in text


def test_nothing_to_do_ends_with_3(
    capsys: pytest.CaptureFixture[str], config: str, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(capsys, "send", "127.0.0.1:1", str(empty))[0] == 3
    assert run(capsys, "queue", "retry", "--all-failed", "--config", config)[0] == 3


def test_what_is_not_there_ends_with_1_and_names_the_next_step(
    capsys: pytest.CaptureFixture[str], config: str
) -> None:
    code, text = run(capsys, "studies", "show", "1.2.3", "--config", config)
    assert (code, "dicomnode studies list" in text) == (1, True)
    code, text = run(capsys, "queue", "drop", "7", "--config", config)
    assert (code, "dicomnode queue list" in text) == (1, True)
