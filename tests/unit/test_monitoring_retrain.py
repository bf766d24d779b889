"""retrain_textfile.py tells Prometheus how a retraining went."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from tests.unit.monitoring import RETRAIN, retrained


def values(path: Path) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in path.read_text().splitlines() if line[0] != "#"]
    return {name.removeprefix("dicomnode_retrain_last_"): float(value) for name, value in lines}


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("exit 0", "published"),
        ("exit 3", "nothing_new"),
        ("exit 1", "failed"),
        ("exit 2", "failed"),
        ("kill -9 $$", "failed"),
        ('printf \'{\\n  "outcome": "published"\\n}\\n\'', "published"),
        ('printf \'{\\n  "outcome": "refused"\\n}\\n\'; exit 1', "refused"),
        ('echo training; echo \'{"outcome": "nothing_new"}\'; exit 3', "nothing_new"),
        ('echo \'{"outcome": "published"}\'; exit 1', "failed"),
    ],
)
def test_the_outcome_of_a_retraining_is_told(tmp_path: Path, script: str, outcome: str) -> None:
    path = tmp_path / "retrain.prom"
    retrained(path, script)
    told = {name for name, value in values(path).items() if "outcome" in name and value == 1}
    assert told == {f'outcome{{outcome="{outcome}"}}'}


def test_output_and_exit_code_are_passed_on(tmp_path: Path) -> None:
    done = retrained(tmp_path / "retrain.prom", "echo said; echo wrong >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("said\n", "wrong\n", 7)


def test_a_failure_keeps_the_time_of_the_last_success(tmp_path: Path) -> None:
    path = tmp_path / "retrain.prom"
    retrained(path, "exit 1")
    assert "success_timestamp_seconds" not in values(path)
    retrained(path, "exit 3")
    first = values(path)
    assert first["success_timestamp_seconds"] == first["run_timestamp_seconds"]
    retrained(path, "exit 1")
    second = values(path)
    assert second["success_timestamp_seconds"] == first["success_timestamp_seconds"]
    assert second["run_timestamp_seconds"] > first["run_timestamp_seconds"]


@pytest.mark.parametrize("outcome", ["worker", "dry_run"])
def test_what_is_no_run_of_its_own_leaves_the_file_alone(tmp_path: Path, outcome: str) -> None:
    path = tmp_path / "retrain.prom"
    assert retrained(path, f'echo \'{{"outcome": "{outcome}"}}\'').returncode == 0
    assert not path.exists()


def test_a_folder_that_is_missing_is_told_before_the_training_starts(tmp_path: Path) -> None:
    done = retrained(tmp_path / "missing" / "retrain.prom", f"touch {tmp_path}/started")
    assert done.returncode == 2
    assert "is no folder" in done.stderr
    assert not (tmp_path / "started").exists()


def test_sigterm_ends_the_training_and_the_failure_is_told(tmp_path: Path) -> None:
    path = tmp_path / "retrain.prom"
    command = [sys.executable, str(RETRAIN), str(path), "--", "sh", "-c", "echo on; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        process.terminate()
        assert process.wait(10) == 128 + 15
    assert values(path)['outcome{outcome="failed"}'] == 1


def test_the_outcomes_are_those_of_the_trainer() -> None:
    from trainer.retrain.outcome import Outcome

    text = RETRAIN.read_text()
    for outcome in get_args(get_type_hints(Outcome)["outcome"]):
        assert f'"{outcome}"' in text
